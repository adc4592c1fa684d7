"""Training pictures of the learned reconstruction: CIFAR-10, and crops of larger pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.training.cifar10 import HELD_OUT
from lab.training.recipe import Images
from producers.scene.simulator import SceneSimulator
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings

SIDE = 32


def cifar_pictures(data: Path) -> Images:
    """Return the (49000, 32, 32, 3) uint8 training pictures that are not held out."""
    with np.load(data / "cifar10.npz") as archive:
        pictures: Images = archive["train_x"][:-HELD_OUT]
    return pictures


def crops_of_larger(data: Path, count: int, seed: int, side: int = SIDE) -> Images:
    """Return `count` crops (side, side, 3) uint8: a third each of videos, scenes and enlarged CIFAR-10 pictures.

    `side` is at most 64. Videos and simulated scenes are cropped at their own size, or after halving with area
    averaging, which keeps more detail per pixel.
    """
    generator = np.random.default_rng(seed)
    third = count // 3
    frames = [*_video_frames(sorted((data / "video").glob("*.mp4"))), *_scenes(24)]
    frames += [_halved(frame) for frame in frames]
    large = [random_crop(frames[i % len(frames)], generator, side) for i in range(2 * third)]
    small = cifar_pictures(data)[generator.choice(49_000, count - 2 * third, replace=False)]
    enlarged = F.interpolate(_stacked(small), scale_factor=2.0, mode="bicubic", align_corners=False).clamp_(0, 255)
    cut = [random_crop(picture, generator, side) for picture in enlarged.round_().byte().permute(0, 2, 3, 1).numpy()]
    return np.stack([*large, *cut])


def _stacked(pictures: Images) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float()


def _video_frames(files: list[Path], every: int = 60) -> list[Images]:
    frames = []
    for file in files:
        source = open_source(SourceSettings(kind="video", file=file))
        while (captured := source.read()) is not None:
            frames.append(captured.picture)
            source.seek(captured.position + every)
        source.close()
    return frames


def _scenes(count: int) -> list[Images]:
    return [SceneSimulator(seed=1, camera=i, size=(256, 256)).render(7 * i)[0] for i in range(count)]


def _halved(picture: Images) -> Images:
    halved = F.avg_pool2d(_stacked(picture[None]), 2).round_().byte()
    result: Images = halved[0].permute(1, 2, 0).numpy()
    return result


def random_crop(picture: Images, generator: np.random.Generator, side: int) -> Images:
    """Return a random square of `side` × `side` pixels of a picture (H, W, C)."""
    height, width, _ = picture.shape
    y, x = generator.integers(height - side + 1), generator.integers(width - side + 1)
    return picture[y : y + side, x : x + side]
