"""Video files of given pictures, and the pictures of video files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np

from schemas.pixels.packing import Picture


def write_video(file: Path, pictures: Iterable[Picture], fps: float = 10.0, **options: str) -> Path:
    """Write pictures, at least one, as H.264 with libx264's `options`; return the file.

    `pictures` are uint8 [height, width, 3] in RGB, all of one size with even sides. The file's extension gives its
    format.
    """
    rest = iter(pictures)
    first = next(rest)
    with av.open(str(file), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=options)
        stream.height, stream.width, stream.pix_fmt = *first.shape[:2], "yuv420p"
        for picture in chain((first,), rest):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return file


def sampled_pictures(file: Path, fps: float) -> Iterator[tuple[float, Picture]]:
    """Yield the pictures (H, W, 3) of a video at `fps`, each with its time in seconds."""
    number = 0
    with av.open(str(file)) as opened:
        for frame in opened.decode(video=0):
            if frame.time is None or frame.time < number / fps:
                continue
            # Rounding may put the product slightly below a whole number.
            number = int(frame.time * fps + 1e-6) + 1
            yield frame.time, np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def shades(count: int, width: int, height: int, step: int = 10) -> Iterable[Picture]:
    """Yield `count` grey pictures, each brighter than the last by `step` of 255."""
    for number in range(count):
        yield np.full((height, width, 3), step * number, np.uint8)
