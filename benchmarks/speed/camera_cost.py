"""CPU cost of a camera by frame size: `python -m benchmarks.speed.camera_cost [--out FOLDER]`.

Frames of the same videos pass through a camera's own steps in one thread, for each size and profile in turn. The videos
are those under $POINTILLIST_DATA/video, else simulated scenes. Frames are sealed (mask, packing, cipher, tag) and
appended to a spool on the disk of the temporary folder. The drop ratio is .25, and a twentieth of the frames are sent
whole. Under `video`, the frames of one group come first, of which the first is a key frame; small pictures have no row,
because a camera sends them as under `raw`. `decode` is the cost of decoding an H.264 stream of that size to RGB in PyAV
before that.

Times are CPU time of this thread: the median over frames, least of three turns. Bytes are whole messages. `frames/s` is
the capacity of one core, decoding included.
"""

from __future__ import annotations

import csv
import io
import platform
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import numpy as np

from benchmarks.harness.command_line import command_line
from benchmarks.harness.cpu_time import timed
from benchmarks.harness.data_sets import present_videos
from producers.camera.sealing import FrameSealer
from producers.sources.decoder import to_rgb
from producers.sources.framing import resize
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from producers.spool import Spool
from producers.spool.spool import SpoolLimits
from producers.video.group import VIDEO_FROM, GroupEncoder
from producers.video.video_settings import VideoSettings
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.limits import dropped_per_block
from schemas.messages.frame import PROFILES, Encoding
from schemas.pixels.packing import Picture
from schemas.pointillist_pb2 import VIDEO

SIZES: Final = ((32, 32), (160, 120), (320, 240), (640, 480), (1280, 720), (1920, 1080))
DROP: Final = 0.25
PROBES: Final = 0.05
FRAMES: Final = 20
TURNS: Final = 3
"""Number of turns; the least counts. Other load on the machine makes a turn longer, never shorter."""
_KEY: Final = derive_camera_key(b"a secret for measuring", CameraId("bench/cost"))


class Cost(NamedTuple):
    """One row: milliseconds of CPU and bytes per frame, and frames per second on one core."""

    size: str
    profile: str
    decode_ms: float
    seal_ms: float
    raw_bytes: int
    bytes: int
    frames_per_second: float


def runs(size: tuple[int, int], count: int) -> list[list[Picture]]:
    """Return the first `count` frames of each video, in `size` (width, height)."""
    settings = [SourceSettings(kind="video", file=file) for file in present_videos()]
    settings = settings or [SourceSettings(kind="scene", size=size)]
    found = []
    for each in settings:
        source = open_source(each)
        found.append([resize(captured.picture, size) for captured in islice(iter(source.read, None), count)])
        source.close()
    return found


def own_size(file: Path) -> tuple[int, int]:
    """Return width and height of a video."""
    with av.open(str(file), "r") as container:
        return container.streams.video[0].width, container.streams.video[0].height


def decoding_s(frames: list[Picture]) -> float:
    """Return CPU seconds per frame for decoding an H.264 stream of these frames to RGB."""
    height, width, _ = frames[0].shape
    stored = io.BytesIO()
    with av.open(stored, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = width - width % 2, height - height % 2, "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    stored.seek(0)
    with av.open(stored, "r") as container:
        container.streams.video[0].thread_type = "NONE"
        _, spent = timed(lambda: [to_rgb(frame) for frame in container.decode(video=0)], time.thread_time_ns)
    return spent / len(frames)


def sealing(folder: Path, frames: list[Picture], profile: int) -> tuple[list[float], int]:
    """Return the CPU seconds of each frame, sealed and spooled, and the bytes of all messages."""
    spool = Spool(folder, _KEY.camera_id, SpoolLimits(max_bytes=2**31))
    total = 0

    def publish(payload: bytes, position: int, captured_ms: int, raw_bytes: int) -> None:
        nonlocal total
        total += len(payload)
        spool.append(payload, position, captured_ms, raw_bytes)

    encoding = Encoding(dropped_per_block(DROP), PROBES, profile)
    seals = FrameSealer(_KEY, spool, publish, GroupEncoder(_KEY, VideoSettings()))
    taken = []
    for number, picture in enumerate(frames):

        def one(number: int = number, picture: Picture = picture) -> None:
            seals.seal(picture, 200 * number, number, encoding)
            seals.append()

        taken.append(timed(one, time.thread_time_ns)[1])
    spool.close()
    return taken, total


def measured(size: tuple[int, int], folder: Path) -> list[Cost]:
    """Return the rows of one size."""
    sets = runs(size, FRAMES)
    count = sum(len(frames) for frames in sets)
    decode_s = float("inf")
    profiles = {name: profile for name, profile in PROFILES.items() if profile != VIDEO or min(size) >= VIDEO_FROM}
    seal_s, sent = dict.fromkeys(profiles, float("inf")), dict.fromkeys(profiles, 0)
    for turn in range(TURNS):
        decode_s = min(decode_s, statistics.median(decoding_s(frames) for frames in sets))
        for name, profile in profiles.items():
            each = [sealing(folder / f"{size[0]}-{name}-{turn}-{i}", own, profile) for i, own in enumerate(sets)]
            # The first frame also builds the camera's codebook, once.
            times = [spent for taken, _ in each for spent in taken[1:]]
            seal_s[name] = min(seal_s[name], statistics.median(times))
            sent[name] = round(sum(total for _, total in each) / count)
    return [
        Cost(
            f"{size[0]}×{size[1]}", name, 1000 * decode_s, 1000 * seal_s[name], 3 * size[0] * size[1], sent[name],
            1 / (decode_s + seal_s[name]),
        )
        for name in profiles
    ]  # fmt: skip


def page(rows: list[Cost]) -> str:
    """Return the measurements as Markdown."""
    lines = ["| size | profile | decode | seal and spool | bytes a frame | of raw | frames/s on a core |"]
    lines.append("| --- " * 7 + "|")
    lines += [
        f"| {row.size} | {row.profile} | {row.decode_ms:.2f} ms | {row.seal_ms:.2f} ms | {row.bytes:,} | "
        f"{row.bytes / row.raw_bytes:.0%} | {row.frames_per_second:,.0f} |"
        for row in rows
    ]
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, PyAV {av.__version__}"
    sizes = [own_size(file) for file in present_videos()]
    seen = "videos of fixed cameras" if sizes else "simulated scenes that move"
    head = f"`python -m benchmarks.speed.camera_cost` on {seen}; {versions}. Its docstring says what is measured."
    note = "A twentieth of the frames go whole."
    if sizes:
        width, height = min(sizes)
        note = (
            f"The smallest video is {width}×{height}: enlarged beyond that it is smoother than a camera's own picture, "
            f"of which `lossless` leaves more bytes. {note}"
        )
    return "\n".join(["# What a camera of each size costs", "", head, note, "", *lines, ""])


def main() -> None:
    """Measure, print, and write the page with its CSV."""
    arguments = command_line(__doc__, out=Path)
    rows: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="pointillist-camera-cost-") as folder:
        for size in SIZES:
            rows += measured(size, Path(folder))
    sys.stdout.write(page(rows))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "README.md").write_text(page(rows))
        with (arguments.out / "camera-cost.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(Cost._fields)
            writer.writerows(rows)


if __name__ == "__main__":
    main()
