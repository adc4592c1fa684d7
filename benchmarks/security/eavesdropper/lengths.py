"""Motion in the scene, guessed by an eavesdropper from the lengths of messages under the profile `video`.

    python -m benchmarks.security.eavesdropper.lengths --out docs/results/video

Sealed bytes have the length of the plain ones. For each `--video` (default: those under $POINTILLIST_DATA/video), the
eavesdropper gets the lengths of all messages but key frames, and the number of the frame in its group. Of two frames,
one with more motion than the video's median and one with less, the longer message is guessed to be the one with more.
Motion is the mean change of the source's luma since the frame before. The share of right guesses is .5 by
chance. `--out` receives `lengths.json` and `lengths.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bytes.video import BOOT, FRAME_MS, planes_of
from benchmarks.bytes.ways import KEY
from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.data_sets import sample_videos
from producers.video.group import GroupEncoder
from producers.video.video_settings import VideoSettings
from schemas.limits import dropped_per_block
from schemas.messages.access_unit import open_unit
from schemas.messages.frame import Encoding, opened_pixels, parse_frame
from schemas.pixels.planes import Planes
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import write_json


@dataclass(frozen=True)
class Row:
    """The lengths of one video's messages."""

    video: str
    frames: int
    """Frames that are compared: all but key frames."""
    lengths: int
    """Different lengths among them."""
    right: float
    """Share of right guesses."""
    right_without_padding: float
    padding: float
    """Bytes with padding ÷ bytes without."""


def right_guesses(lengths: Sequence[int], motion: Sequence[float]) -> float:
    """Return the share of right guesses over all pairs; equal lengths count one half."""
    sizes, moves = np.array(lengths), np.array(motion) > np.median(motion)
    more, less = sizes[moves][:, None], sizes[~moves][None]
    return float(((more > less) + 0.5 * (more == less)).mean())


def measured(name: str, frames: Sequence[Planes], dropped: int) -> Row:
    """Return the row of a video."""
    groups = GroupEncoder(KEY, VideoSettings())
    padded: list[int] = []
    plain: list[int] = []
    motion: list[float] = []
    last: NDArray[np.int16] | None = None
    for seq, planes in enumerate(frames):
        frame = parse_frame(groups.encode(planes, BOOT, seq, FRAME_MS * seq, Encoding(dropped)))
        luma = planes.luma.astype(np.int16)
        if frame.key_distance and last is not None:
            padded.append(len(frame.pixels))
            plain.append(len(open_unit(opened_pixels(KEY, frame)).data))
            motion.append(float(np.abs(luma - last).mean()))
        last = luma
    groups.end()
    return Row(
        name, len(padded), len(set(padded)), right_guesses(padded, motion), right_guesses(plain, motion),
        sum(padded) / sum(plain),
    )  # fmt: skip


def page(result: dict[str, Any]) -> str:
    """Return the page of the results."""
    lines = [
        "# Motion from the lengths of messages",
        "",
        f"Made by `{result['command']}`; the figures are in [lengths.json](lengths.json).",
        "",
        "An eavesdropper sees the length of each sealed message under the profile `video`. Of two frames, one with "
        "more motion than the video's median and one with less, the eavesdropper guesses that the longer one has more. "
        "The table has the share of right guesses: .5 is chance. Messages of `raw` have one length.",
        "",
        "| video | frames | lengths | right | right without padding | bytes ÷ without padding |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['video']} | {row['frames']} | {row['lengths']} | {row['right']:.3f} | "
        f"{row['right_without_padding']:.3f} | {row['padding']:.3f} |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write table and page."""
    options = command_line(
        __doc__,
        out=Option(Path, "folder for table and page", required=True),
        video=Option(Path, "video files", several="*"),
        frames=Option(300, "most frames of each video (0: all)"),
    )
    videos = options.video or sample_videos()
    rows = [asdict(measured(each.name, planes_of(each, options.frames), dropped_per_block(0.25))) for each in videos]
    result = {"command": options.command, "rows": rows}
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "lengths.json", result)
    write_text(options.out / "lengths.md", page(result))


if __name__ == "__main__":
    main()
