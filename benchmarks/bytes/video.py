"""The profile `video` compared with its codec without a mask: bytes, CPU time, picture.

    python -m benchmarks.bytes.video --out docs/results/video

Every frame of each `--video` (default: those under $POINTILLIST_DATA/video) goes through the camera's way, from mask to
spool, and in turn through the bare codec with the same settings and key frames. Every `--every`-th frame is compared
with the camera's own picture: the bare codec's decoded one, and ours rebuilt from its kept positions by the shipped
restoration. `--out` receives `video.json` and `README.md`.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import torch

from benchmarks.bytes.quality import psnr_db, rebuilt
from benchmarks.bytes.ways import KEY, read
from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.cpu_time import timed
from benchmarks.harness.data_sets import sample_videos
from lab.codec import Decoder
from producers.sources.decoder import to_planes
from producers.spool import Spool
from producers.video.encoder import Encoder, software_encoder
from producers.video.group import USUAL_RATE, GroupEncoder
from producers.video.video_settings import VideoSettings
from schemas.limits import dropped_per_block
from schemas.messages.access_unit import open_unit
from schemas.messages.frame import Encoding, opened_pixels, parse_frame
from schemas.pixels.masks import kept_mask
from schemas.pixels.planes import Planes, to_picture
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import write_json

WAYS: Final = (("h264", 18), ("h264", 23), ("av1", 28))
LENGTHS: Final = (1, 10, 25, 50, 100, 250)
FRAME_MS: Final = 40
BOOT: Final = 1


@dataclass(frozen=True)
class Row:
    """Means over the frames of one video with one codec."""

    video: str
    size: str
    codec: str
    crf: int
    frames: int
    groups: int
    bare_bytes: float
    video_bytes: float
    """Bytes of a whole message, with padding, header and tag."""
    bytes_ratio: float
    raw_ratio: float
    """Bytes of a message ÷ height × width × 3."""
    compared: int
    bare_psnr_db: float
    video_psnr_db: float
    loss_db: float
    bare_cpu_ms: float
    video_cpu_ms: float
    cpu_ratio: float


class Spent:
    """CPU times of one way, of key frames and of the others.

    Medians count: a busy machine makes single frames slow.
    """

    def __init__(self) -> None:
        self._s: dict[bool, list[float]] = {True: [], False: []}

    def add(self, first: bool, seconds: float) -> None:
        """Add a frame; `first` marks key frames."""
        self._s[first].append(seconds)

    @property
    def frame_ms(self) -> float:
        """Milliseconds of a frame, with the key frames' share."""
        return 1000 * sum(len(each) * median(each) for each in self._s.values() if each) / self.frames

    @property
    def frames(self) -> int:
        """Number of frames."""
        return sum(map(len, self._s.values()))


def planes_of(video: Path, most: int) -> list[Planes]:
    """Return the first frames of a video as its decoder gives them."""
    found = [to_planes(frame) for frame in read(video, most)]
    if None in found:
        raise SystemExit(f"{video}: expected a video in 4:2:0 with 8 bits")
    return [planes for planes in found if planes is not None]


def measured(name: str, frames: list[Planes], codec: Any, crf: int, dropped: int, every: int) -> Row:
    """Measure one codec on one video."""
    if len(frames) <= every // 2:
        raise SystemExit(
            f"--every: expected at most {2 * len(frames) - 1} for {len(frames)} frames of {name}, got {every}"
        )
    height, width, _ = frames[0].shape
    chosen = VideoSettings(codec=codec, crf=crf)
    ours, bare_spent, our_spent = GroupEncoder(KEY, chosen), Spent(), Spent()
    bare: Encoder | None = None
    bare_decoder, our_decoder = Decoder(height, width), Decoder(height, width)
    bare_bytes, our_bytes, groups = 0, 0, 0
    bare_db: list[float] = []
    our_db: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), KEY.camera_id)

        def sent(planes: Planes, seq: int) -> bytes:
            message = ours.encode(planes, BOOT, seq, FRAME_MS * seq, Encoding(dropped))
            spool.append(message, seq, FRAME_MS * seq, planes.nbytes)
            spool.confirm(spool.current.boot_id, [(seq, seq)])
            return message

        def bare_unit(planes: Planes, *, first: bool) -> bytes:
            nonlocal bare
            if first or bare is None:
                if bare is not None:
                    bare.close()
                bare = software_encoder(chosen.codec_number, height, width, USUAL_RATE, crf)
            return bare.encode(planes)

        for seq, planes in enumerate(frames):
            message, our_s = timed(partial(sent, planes, seq))
            frame = parse_frame(message)
            first = not frame.key_distance
            unit, bare_s = timed(partial(bare_unit, planes, first=first))
            our_spent.add(first, our_s)
            bare_spent.add(first, bare_s)
            groups += first
            bare_bytes += len(unit)
            our_bytes += len(message)
            own = open_unit(opened_pixels(KEY, frame))
            shown = our_decoder.picture(own.codec, bytes(own.data), planes, first=first)
            plain = bare_decoder.picture(chosen.codec_number, unit, planes, first=first)
            if seq % every == every // 2:
                picture = to_picture(planes)
                kept = kept_mask(KEY, BOOT, seq - frame.key_distance, height, width, dropped)
                our_db.append(psnr_db(picture, rebuilt(shown * kept[..., None], kept, "default")))
                bare_db.append(psnr_db(picture, plain))
        ours.end()
        if bare is not None:
            bare.close()
        spool.close()
    count = len(frames)
    return Row(
        name, f"{width}x{height}", codec, crf, count, groups,
        bare_bytes / count, our_bytes / count, our_bytes / bare_bytes, our_bytes / count / (3 * height * width),
        len(our_db), fmean(bare_db), fmean(our_db), fmean(bare_db) - fmean(our_db),
        bare_spent.frame_ms, our_spent.frame_ms, our_spent.frame_ms / bare_spent.frame_ms,
    )  # fmt: skip


def by_length(name: str, frames: list[Planes], dropped: int) -> dict[str, Any]:
    """Return the bytes of a message for each length of a group."""
    found: dict[str, Any] = {"video": name}
    for length in LENGTHS:
        ours = GroupEncoder(KEY, VideoSettings(group_frames=length, group_s=60))
        sizes = [
            len(ours.encode(planes, BOOT, seq, FRAME_MS * seq, Encoding(dropped))) for seq, planes in enumerate(frames)
        ]
        ours.end()
        found[str(length)] = fmean(sizes)
    return found


def page(result: dict[str, Any]) -> str:
    """Return the page of the results."""
    lines = [
        "# The profile `video` compared with its codec without a mask",
        "",
        f"Made by `{result['command']}`; the figures are in [video.json](video.json). r = {result['drop']}.",
        "",
        "Bytes are of a whole message: header, tag and padding included, compared with the bare codec's stream with "
        "the same settings and key frames. PSNR is against the camera's own picture: the bare codec's decoded picture, "
        "and ours rebuilt from its kept positions by the shipped restoration. CPU time of the camera covers mask, "
        "fill, encoder, seal and spool: the medians of key frames and of other frames, by their numbers. The machine "
        "had other work: only the ratios count.",
        "",
        "| video | codec, CRF | bytes bare | bytes | ÷ bare | ÷ raw pixels | PSNR bare, dB | PSNR, dB | loss, dB | "
        "CPU ÷ bare |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['video']} | {row['codec']}, {row['crf']} | {row['bare_bytes']:,.0f} | {row['video_bytes']:,.0f} | "
        f"{row['bytes_ratio']:.2f} | {row['raw_ratio']:.4f} | {row['bare_psnr_db']:.2f} | {row['video_psnr_db']:.2f} | "
        f"{row['loss_db']:.2f} | {row['cpu_ratio']:.2f} |"
        for row in result["rows"]
    ]
    lines += [
        "",
        "## Length of a group",
        "",
        "Bytes of a message with H.264 at the default CRF, by the most frames of a group.",
        "",
        "| video | " + " | ".join(map(str, LENGTHS)) + " |",
        "| --- |" + " --- |" * len(LENGTHS),
    ]
    lines += [
        f"| {row['video']} | " + " | ".join(f"{row[str(length)]:,.0f}" for length in LENGTHS) + " |"
        for row in result["lengths"]
    ]
    lines += [
        "",
        "Mutated access units of a hostile camera: [fuzz.json](fuzz.json), with its command. STRIP on coded probes: "
        "[strip.md](strip.md). Motion from the lengths of messages: [lengths.md](lengths.md). EOT-PGD through the "
        "codec: [attack.md](attack.md). Photographs: [photographs.md](photographs.md). Faults in the middle of groups: "
        "[drill.json](drill.json).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write table and page."""
    options = command_line(
        __doc__,
        out=Option(Path, "folder for table and page", required=True),
        video=Option(Path, "video files", several="*"),
        frames=Option(300, "most frames of each video (0: all)"),
        every=Option(50, "compare every N-th frame with the camera's picture"),
        drop=0.25,
    )
    torch.set_num_threads(1)
    dropped = dropped_per_block(options.drop)
    kept_mask(KEY, BOOT, 0, 64, 64, dropped)  # a camera makes the pool of patterns while its source opens
    videos = options.video or sample_videos()
    rows, lengths = [], []
    for video in videos:
        frames = planes_of(video, options.frames)
        for codec, crf in WAYS:
            rows.append(asdict(measured(video.name, frames, codec, crf, dropped, options.every)))
            print(rows[-1], flush=True)
        lengths.append(by_length(video.name, frames, dropped))
        print(lengths[-1], flush=True)
    result = {
        "command": options.command,
        "drop": options.drop,
        "rows": rows,
        "lengths": lengths,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "video.json", result)
    write_text(options.out / "README.md", page(result))


if __name__ == "__main__":
    main()
