"""The cost and the size of a camera's encoding compared with a JPEG of the same frame.

    python -m benchmarks.speed.edge --json edge.json
    python -m benchmarks.speed.edge --size 1920 1080 --timed-frames 2 --json edge-1080p.json

All encoders take the same frames in turn, in one thread of one process. Each encoding computes its mask, as a camera
does for each frame; the codebook is built once. `raw` and `lossless` are medians of CPU time over single frames.
`message` is the whole message under `raw`, with its tag.

The frames come from `--video` files (by default those under $POINTILLIST_DATA/video, else simulated scenes). They are
timed at `--size`; bytes are counted at their own size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.cpu_time import timed
from benchmarks.harness.data_sets import present_videos
from benchmarks.harness.document import report
from producers.sources.framing import resize
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.limits import dropped_per_block
from schemas.messages.frame import Encoding, encode_frame
from schemas.pixels.masks import kept_mask
from schemas.pixels.packing import Picture, packed
from schemas.pointillist_pb2 import LOSSLESS, RAW

QUALITY: Final = 90
WARM_UP: Final = 3
KEY: Final = derive_camera_key(b"a secret for measuring", CameraId("bench/edge"))


def pictures(settings: SourceSettings, every: int) -> list[Picture]:
    """Return every n-th frame, n = `every`, of a finite source in its own size."""
    source = open_source(settings)
    found = []
    while (captured := source.read()) is not None:
        found.append(captured.picture)
        source.seek(captured.position + every)
    source.close()
    return found


def sets_of_pictures(videos: list[Path], every: int, size: tuple[int, int]) -> dict[str, list[Picture]]:
    """Return pictures by the name of their source."""
    if videos:
        return {file.name: pictures(SourceSettings(kind="video", file=file), every) for file in videos}
    scene = open_source(SourceSettings(kind="scene", size=size))
    return {"scene": [captured.picture for captured in islice(iter(scene.read, None), 40)]}


def encode(picture: Picture, number: int, dropped: int, profile: int) -> bytes | memoryview:
    """Return the packed pixels of one frame, mask computation included."""
    height, width, _ = picture.shape
    return packed(picture, kept_mask(KEY, 1, number, height, width, dropped), profile)


def jpeg(blue_first: Picture) -> object:
    """Return a JPEG of a picture in OpenCV's colour order."""
    return cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def measure_times(frames: list[Picture], dropped: int, repeats: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each encoding of each frame: the median of its repeats, which take turns."""
    times: dict[str, list[float]] = {"jpeg": [], "raw": [], "message": [], "lossless": []}
    encoding = Encoding(dropped, 0.0, RAW)
    for number, frame in enumerate(frames):
        blue_first = np.ascontiguousarray(frame[..., ::-1])
        actions: dict[str, Callable[[], object]] = {
            "jpeg": lambda f=blue_first: jpeg(f),  # type: ignore[misc]
            "raw": lambda f=frame, n=number: encode(f, n, dropped, RAW),  # type: ignore[misc]
            "message": lambda f=frame, n=number: encode_frame(KEY, 1, n, n, f, encoding),  # type: ignore[misc]
            "lossless": lambda f=frame, n=number: encode(f, n, dropped, LOSSLESS),  # type: ignore[misc]
        }
        runs: dict[str, list[float]] = {name: [] for name in actions}
        for turn in range(WARM_UP + repeats):
            for name, action in actions.items():
                _, took = timed(action, time.thread_time_ns)
                if turn >= WARM_UP:
                    runs[name].append(took)
        for name, taken in runs.items():
            times[name].append(statistics.median(taken))
    return times


def lossless_share(frames: list[Picture], dropped: int) -> float:
    """Return the mean over the frames of lossless ÷ raw bytes."""
    shares = []
    for number, frame in enumerate(frames):
        raw, lossless = (len(encode(frame, number, dropped, profile)) for profile in (RAW, LOSSLESS))
        shares.append(lossless / raw)
    return statistics.fmean(shares)


def main() -> None:
    """Measure, print and write."""
    options = command_line(
        __doc__,
        json=Option(Path, "write the figures to this file"),
        video=Option(Path, "video files", several="*"),
        every=Option(20, "use every N-th frame of a video"),
        size=Option((640, 480), "width and height of the timed frames", several=2),
        drop=0.25,
        repeats=15,
        timed_frames=Option(4, "frames of each source that are timed"),
    )
    cv2.setNumThreads(1)
    videos = present_videos() if options.video is None else options.video
    size = (options.size[0], options.size[1])
    dropped = dropped_per_block(options.drop)

    sources = sets_of_pictures(videos, options.every, size)
    timed = [
        resize(frame, size)
        for frames in sources.values()
        for frame in frames[:: max(1, len(frames) // options.timed_frames)][: options.timed_frames]
    ]
    times = measure_times(timed, dropped, options.repeats)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    slowest = {
        name: max(own / jpeg for own, jpeg in zip(times[name], times["jpeg"], strict=True))
        for name in ("raw", "lossless")
    }
    shares = {name: lossless_share(frames, dropped) for name, frames in sources.items()}
    weights = [len(frames) for frames in sources.values()]
    found = {
        "raw_over_jpeg": medians["raw"] / medians["jpeg"],
        "message_over_jpeg": medians["message"] / medians["jpeg"],
        "lossless_over_jpeg": medians["lossless"] / medians["jpeg"],
        "raw_over_jpeg_worst_frame": slowest["raw"],
        "lossless_over_jpeg_worst_frame": slowest["lossless"],
        "cpu_s_per_frame": medians,
        "jpeg_quality": QUALITY,
        "size": list(size),
        "drop_ratio": options.drop,
        "timed_frames": len(timed),
        "repeats": options.repeats,
        "lossless_over_raw_bytes": float(np.average(list(shares.values()), weights=weights)),
        "lossless_over_raw_bytes_by_source": shares,
        "frames_by_source": dict(zip(sources, weights, strict=True)),
        "opencv": cv2.__version__,
        "numpy": np.__version__,
    }
    report(found, options.json)


if __name__ == "__main__":
    main()
