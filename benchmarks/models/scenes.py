"""Scenes that a processor recognises in the sample videos: `python -m benchmarks.models.scenes --json FILE`.

Each video under $POINTILLIST_DATA/video is read at 5 frames/s. Its probes are `interval_s` apart: each frame, one a
second, and one in four seconds, the mean interval at 5 % probes. A camera begins with each of the frames of the first
interval. The cameras of all videos are fixed, so a video is one scene; what moves may look like others.

A sticker of a fiftieth of the frame appears for good in the middle of the video, black or white, at one of four places.
Its probes count as recognised if their scene is one that the camera has shown before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness.command_line import command_line
from benchmarks.harness.data_sets import sample_videos
from benchmarks.harness.document import machine, report
from benchmarks.harness.videos import timed_pictures_at
from lab.data import to_frames
from processors.stages.scenes import Coarse, SceneMemory, coarse_pictures
from schemas.pixels.packing import Picture

FPS: Final = 5.0
INTERVALS: Final = (1, 5, 20)
"""Frames from one probe to the next."""
SHARE: Final = 0.02
"""Area of a sticker, as a share of the frame."""
PLACES: Final = ((0.1, 0.1), (0.1, 0.75), (0.7, 0.1), (0.45, 0.45))
"""Upper left corners of stickers, as shares of height and width."""
STICKERS: Final = tuple(product(PLACES, (0, 255)))
Blocks = NDArray[np.float32]


class Row(NamedTuple):
    """The probes of one video at one interval, over all cameras. Shares are of the probes."""

    video: str
    interval_s: float
    cameras: int
    probes: int
    scenes: float
    """Mean number of scenes of a camera."""
    in_commonest: float
    """Share of the probes in the commonest scene of their camera."""
    with_sticker: int
    """Probes with a sticker."""
    recognised: float
    """Share of those whose scene the camera had shown before the sticker."""


def stuck(picture: Picture, place: tuple[float, float], level: int) -> Picture:
    """Return a picture (H, W, 3) with a square sticker."""
    height, width = picture.shape[:2]
    side, (top, left) = round((SHARE * height * width) ** 0.5), (round(place[0] * height), round(place[1] * width))
    found = picture.copy()
    found[top : top + side, left : left + side] = level
    return found


def blocks(pictures: Iterable[Picture]) -> Blocks:
    """Return the blocks of pictures as the processor compares them, (n, C, blocks)."""
    return np.concatenate([coarse_pictures(to_frames(each[None], torch.device("cpu"))) for each in pictures])


def scenes(shown: Iterable[Coarse]) -> list[int]:
    """Return the scene of each probe of one camera."""
    memory = SceneMemory(remembered=1)
    return [memory.number(("camera", 1), seq, each) for seq, each in enumerate(shown)]


def rows(video: str, clean: Blocks, attacked: Sequence[Blocks]) -> list[Row]:
    """Return a row for each interval. `attacked` holds the frames with each sticker."""
    found = []
    for step in INTERVALS:
        cameras = [range(first, len(clean), step) for first in range(min(step, len(clean)))]
        quiet = [scenes([clean[place] for place in each]) for each in cameras]
        common = sum(Counter(each).most_common(1)[0][1] for each in quiet)
        known = []
        for each, sticker in product(cameras, attacked):
            middle = len(each) // 2
            seen = scenes([*(clean[place] for place in each[:middle]), *(sticker[place] for place in each[middle:])])
            known += [scene < middle for scene in seen[middle:]]
        probes = sum(map(len, quiet))
        mean = sum(len(set(each)) for each in quiet) / len(quiet)
        found.append(
            Row(video, step / FPS, len(quiet), probes, mean, common / probes, len(known), sum(known) / len(known))
        )
    return found


def of_file(file: Path) -> list[Row]:
    """Return the rows of a video file."""

    def pictures() -> Iterator[Picture]:
        yield from (picture for _, picture in timed_pictures_at(file, FPS))

    attacked = [blocks(stuck(each, *sticker) for each in pictures()) for sticker in STICKERS]
    return rows(file.stem, blocks(pictures()), attacked)


def main() -> None:
    """Print and write the rows of all videos."""
    options = command_line(__doc__, json=Path)
    found = [row._asdict() for file in sample_videos() for row in of_file(file)]
    report({"command": options.command, "rows": found, "machine": machine("torch", "numpy", "av")}, options.json)


if __name__ == "__main__":
    main()
