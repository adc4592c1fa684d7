"""Two statistics of a frozen and a quiet live camera: one separates the cameras, the other cannot.

    python -m benchmarks.reliability.frozen

Each source gives one picture a second. The live sources are simulated scenes and the videos under
$POINTILLIST_DATA/video. Each video is used unchanged, scaled to 32 x 32, and darkened to one eighth of its contrast,
with the camera's own rounding. Each live source is also frozen at its first picture. Every picture loses pixels by the
mask of its own identity, at three drop ratios. The table shows, in grey levels of 255:

- *sent twice*: the mean change of the pixels that two looks share (`processors.stages.stillness`): the smallest of a
  live source and the largest of a frozen one. A threshold has to be between them.
- *rebuilt*: the mean change of the rebuilt pictures' block means. In a frozen source, the changing masks alone cause
  it.
- *unchanged*: the longest run of looks of the live source below the threshold, in seconds. A camera is called frozen
  after `FROZEN_MS`.
- *found*: seconds until the frozen source is called frozen.

The exit status is 1 if a live source is called frozen, or a frozen one is not within a minute.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch

from benchmarks.harness.command_line import command_line
from benchmarks.harness.data_sets import sample_videos
from benchmarks.harness.videos import sampled_pictures
from consumers.cameras.picture_health import FROZEN_LEVELS, PictureHealth
from processors.stages.plate import reconstruct_plate
from processors.stages.stillness import Stillness
from producers.scene.simulator import SceneSimulator
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.limits import BLOCK, dropped_per_block
from schemas.pixels.masks import kept_mask
from schemas.pixels.packing import Picture

KEY: Final = derive_camera_key(b"a secret for measuring", CameraId("bench/frozen"))
RATIOS: Final = (0.25, 0.5, 0.75)
LOOKS: Final = 60
_NIGHT: Final = 8


@dataclass(frozen=True)
class Seen:
    """The results of one source at one drop ratio."""

    least: float
    most: float
    least_rebuilt: float
    most_rebuilt: float
    longest_s: int
    frozen_at_s: int | None


def video_pictures(file: Path) -> list[Picture]:
    """Return one picture for each second of a video, at most `LOOKS`."""
    return [picture for _, picture in islice(sampled_pictures(file, 1.0), LOOKS)]


def scene_pictures(camera: int, side: int) -> list[Picture]:
    """Return a picture for each second of a simulated camera at four frames a second."""
    simulator = SceneSimulator(7, camera, (side, side))
    return [simulator.render(4 * n)[0] for n in range(LOOKS)]


def scaled(pictures: Sequence[Picture], side: int) -> list[Picture]:
    """Return the pictures as a camera of `side` x `side` pixels gives them."""
    return [np.asarray(cv2.resize(each, (side, side), interpolation=cv2.INTER_AREA), np.uint8) for each in pictures]


def at_night(pictures: Sequence[Picture]) -> list[Picture]:
    """Return the pictures with an eighth of the contrast and of the noise: darker than a camera's picture at night."""
    return [each // _NIGHT + 16 for each in pictures]


@torch.inference_mode()
def looks(pictures: Sequence[Picture], ratio: float) -> Iterator[tuple[float | None, float | None]]:
    """Yield two changes since the last look: of the pixels sent twice, and of the rebuilt picture's blocks."""
    clock = iter(range(10**6))
    stillness = Stillness(clock_s=lambda: 2.0 * next(clock))
    before = None
    for seq, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        kept = torch.from_numpy(kept_mask(KEY, 1, seq, height, width, dropped_per_block(ratio)))[None, None]
        frames = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float().div(255) * kept
        twice = stillness.changes(["bench/frozen"], frames, kept).get(0)
        rebuilt = reconstruct_plate(frames, kept)
        blocks = torch.nn.functional.avg_pool2d(rebuilt.mean(1, keepdim=True) * 255, BLOCK)
        yield twice, None if before is None else float((blocks - before).abs().mean())
        before = blocks


def seen(pictures: Sequence[Picture], ratio: float) -> Seen:
    """Measure one source, live and then frozen at its first picture."""
    live = [found for found in looks(pictures, ratio) if found[0] is not None]
    still = [found for found in looks([pictures[0]] * LOOKS, ratio) if found[0] is not None]
    run = longest = 0
    for twice, _ in live:
        run = run + 1 if twice is not None and twice <= FROZEN_LEVELS else 0
        longest = max(longest, run)
    health, frozen_at_s = PictureHealth(), None
    for second, (twice, _) in enumerate(still, 1):
        health.compare(twice if twice is not None else 255.0, 1000 * second)
        if health.frozen and frozen_at_s is None:
            frozen_at_s = second
    return Seen(
        min(twice or 0.0 for twice, _ in live),
        max(twice or 0.0 for twice, _ in still),
        min(rebuilt or 0.0 for _, rebuilt in live),
        max(rebuilt or 0.0 for _, rebuilt in still),
        longest,
        frozen_at_s,
    )


def sources() -> dict[str, list[Picture]]:
    """Return all sources by name. Raises SystemExit if there are no sample videos."""
    found: dict[str, list[Picture]] = {}
    for file in sample_videos():
        pictures = video_pictures(file)
        height, width = pictures[0].shape[:2]
        found[f"{file.stem} {width}x{height}"] = pictures
        found[f"{file.stem} at night"] = at_night(pictures)
        found[f"{file.stem} 32x32"] = scaled(pictures, 32)
    for camera in range(2):
        found[f"scene {camera} 32x32"] = scene_pictures(camera, 32)
    found["scene 0 256x256"] = scene_pictures(0, 256)
    return found


def main() -> None:
    """Print a line for each source and drop ratio."""
    command_line(__doc__)
    measured = sources()
    print(f"Threshold: {FROZEN_LEVELS:g} grey levels of 255. {LOOKS} looks, one a second.\n")
    print("| source | r | sent twice: live | frozen | rebuilt: live | frozen | unchanged, s | found after, s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    failed = False
    for name, pictures in measured.items():
        for ratio in RATIOS:
            found = seen(pictures, ratio)
            failed |= found.longest_s >= 20 or found.frozen_at_s is None or found.frozen_at_s > 60
            at = "never" if found.frozen_at_s is None else found.frozen_at_s
            print(
                f"| {name} | {ratio:.2f} | {found.least:.3f} | {found.most:.3f} | {found.least_rebuilt:.3f} "
                f"| {found.most_rebuilt:.3f} | {found.longest_s} | {at} |"
            )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
