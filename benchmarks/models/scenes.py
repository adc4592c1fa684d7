"""Scenes that a processor recognises in the sample videos: `python -m benchmarks.models.scenes --json FILE`.

Videos under $POINTILLIST_DATA/video are read at 5 frames/s. A probe is taken every 0.2, 1 or 4 s; the last is the mean
interval at 5 % probes. For each interval, one simulated camera starts at each frame of the first interval. The cameras
stand still, so each video is truly one scene; moving objects can make the processor see more.

From the middle of a camera's probes on, a black or white sticker of 2 % of the frame stays at one of four places. A
probe counts as recognised if the camera had shown its scene before the middle. The frames are compared at the size of
the video; a processor compares them at the input size of its network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness.command_line import command_line
from benchmarks.harness.data_sets import sample_videos
from benchmarks.harness.document import machine, report
from benchmarks.harness.videos import sampled_pictures
from lab.data import to_frames
from processors.stages.scenes import SIDE, Coarse, SceneMemory, coarse_pictures
from producers.scene import paste_sticker
from schemas.pixels.packing import Picture

FPS: Final = 5.0
INTERVALS: Final = (1, 5, 20)
"""Frames from one probe to the next."""
SHARE: Final = 0.02
"""Area of a sticker, as a share of the frame."""
PLACES: Final = ((0.1, 0.1), (0.1, 0.9), (0.9, 0.1), (0.5, 0.5))
"""Positions of stickers, down and across, as `paste_sticker` takes them."""
STICKERS: Final = tuple(product(PLACES, (0, 255)))
Blocks = NDArray[np.float32]
"""The blocks of frames, (n, C, blocks)."""


class Row(NamedTuple):
    """The probes of one video at one interval, over all cameras."""

    video: str
    interval_s: float
    cameras: int
    probes: int
    scenes: float
    """Mean number of scenes of a camera."""
    in_commonest: float
    """Share of the probes in the commonest scene of their camera."""
    recognised_clean: float
    """Share of the probes from the middle on whose scene the camera had shown before, without a sticker."""
    with_sticker: int
    """Probes with a sticker."""
    recognised: float
    """The same share of the probes with a sticker."""


def with_stickers(picture: Picture) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) as it is and with each of `STICKERS`, (1 + stickers, H, W, 3)."""
    short, long = sorted(picture.shape[:2])
    side = (SHARE * long / short) ** 0.5
    stuck = [paste_sticker(picture, place, side, np.full((1, 1, 3), level, np.uint8)) for place, level in STICKERS]
    return np.stack([picture, *stuck])


def scenes(shown: Iterable[Coarse]) -> list[int]:
    """Return the scene of each probe of one camera."""
    memory = SceneMemory(remembered=1)
    return [memory.number(("camera", 1), seq, each) for seq, each in enumerate(shown)]


def rows(video: str, clean: Blocks, attacked: Sequence[Blocks]) -> list[Row]:
    """Return a row for each interval. `attacked` holds the frames with each sticker."""
    found = []
    for step in INTERVALS:
        cameras = [range(first, len(clean), step) for first in range(min(step, len(clean)))]
        quiet = [scenes(clean[each]) for each in cameras]
        commonest = sum(Counter(each).most_common(1)[0][1] for each in quiet)
        probes, with_sticker = sum(map(len, quiet)), list[bool]()
        for each, blocks in product(cameras, attacked):
            middle = len(each) // 2
            with_sticker += _recognised(scenes([*clean[each[:middle]], *blocks[each[middle:]]]))
        without = [known for each in quiet for known in _recognised(each)]
        found.append(
            Row(
                video=video,
                interval_s=step / FPS,
                cameras=len(cameras),
                probes=probes,
                scenes=sum(len(set(each)) for each in quiet) / len(quiet),
                in_commonest=commonest / probes,
                recognised_clean=sum(without) / len(without),
                with_sticker=len(with_sticker),
                recognised=sum(with_sticker) / len(with_sticker),
            )
        )
    return found


def _recognised(shown: list[int]) -> list[bool]:
    """Return for each probe from the middle on whether its scene began before the middle."""
    middle = len(shown) // 2
    return [scene < middle for scene in shown[middle:]]


def of_file(file: Path) -> list[Row]:
    """Return the rows of a video file. Raises SystemExit for a video without frames."""
    pictures = [picture for _, picture in sampled_pictures(file, FPS)]
    if not pictures:
        raise SystemExit(f"{file}: expected a video with frames, got none. Remove the file.")
    # In one array: small ones between the frames' large ones would keep gigabytes of freed memory.
    shown = np.empty((1 + len(STICKERS), len(pictures), 3, SIDE**2), np.float32)
    for place, picture in enumerate(pictures):
        shown[:, place] = coarse_pictures(to_frames(with_stickers(picture), torch.device("cpu")))
    clean, *attacked = shown
    return rows(file.stem, clean, attacked)


def main() -> None:
    """Print and write the rows of all videos."""
    options = command_line(__doc__, json=Path)
    found = [row._asdict() for file in sample_videos() for row in of_file(file)]
    report({"command": options.command, "rows": found, "machine": machine("torch", "numpy", "av")}, options.json)


if __name__ == "__main__":
    main()
