"""Frames of the simulated fleet for hardening its network: several sizes, easy and hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lab.hardening.chance import generator_at, number_at
from lab.hardening.training_batches import TrainingBatch
from lab.training.recipe import shifted
from lab.training.scene import PER_CAMERA, TRAIN_SEED
from producers.scene.simulator import LUMA, SCENE_FRAMES, Conditions, SceneSimulator

FIRST_CAMERA: Final = 200_000
"""A camera number beyond those of all other trainings and tests."""
HARD: Final = Conditions(light=0.4, noise=3, blur=1.5, distance=1.25)
"""The hardest conditions. Each place has conditions between these and the usual ones."""
_GREY = 10  # one place in this many
_PICK, _SHIFT, _HARDNESS = 0, 1, 2


@dataclass(frozen=True)
class Sized:
    """Frames of one size: their number, and their batches among `sum(turns)`."""

    size: tuple[int, int]
    frames: int
    turns: int


SIZES: Final = (
    Sized((32, 32), 12_000, 2),
    Sized((64, 64), 10_000, 2),
    Sized((96, 128), 4_000, 1),
    Sized((144, 256), 3_000, 1),
)
"""The frame sizes.

Larger frames look like those of about 128 lines after scaling to the network's 32: the noise vanishes, the edges stay.
Cameras film 4:3 and 16:9, and the network's square input makes everything narrower.
"""


class SceneBatches:
    """Batches of one size each, with less of ε for hard frames.

    The hardest frame is attacked with the share `least` of ε, a usual one with all of it. Less light is less contrast,
    so the full ε could hide the sign entirely.
    """

    def __init__(
        self, batch: int, seed: int, per_epoch: int, *, hard: float, least: float, sizes: tuple[Sized, ...] = SIZES
    ) -> None:
        """Make a share `hard` of the places harder than usual."""
        self.size, self.seed, self.per_epoch = batch, seed, per_epoch
        self.turns = [number for number, sized in enumerate(sizes) for _ in range(sized.turns)]
        self.sets = [_rendered(sized, number, seed, hard, least) for number, sized in enumerate(sizes)]

    def __len__(self) -> int:
        return self.per_epoch

    def batch(self, step: int) -> TrainingBatch:
        """Return a batch. See `TrainingBatches`."""
        frames, labels, strength = self.sets[self.turns[step % len(self.turns)]]
        index = torch.randint(len(labels), (self.size,), generator=generator_at(self.seed, _PICK, step))
        pad = frames.shape[2] // 16
        moved = shifted(frames[index], pad, False, generator_at(self.seed, _SHIFT, step))
        return TrainingBatch(moved.float() / 255, labels[index], strength[index])


def _rendered(sized: Sized, number: int, seed: int, hard: float, least: float) -> tuple[Tensor, Tensor, Tensor]:
    chance = np.random.default_rng(number_at(seed, _HARDNESS, number))
    images, labels, strength = [], [], []
    for place in range(sized.frames):
        if place % PER_CAMERA == 0:
            # The larger of two draws: hard places are the rarer error of a network that has seen few of them.
            hardness = float(chance.random(2).max()) if chance.random() < hard else 0.0
            simulator = SceneSimulator(
                TRAIN_SEED, FIRST_CAMERA * (number + 1) + place // PER_CAMERA, sized.size, 3, between(hardness)
            )
        frame, label = simulator.render(place % PER_CAMERA * SCENE_FRAMES + place % SCENE_FRAMES)
        if place % _GREY == 0:
            frame = np.broadcast_to(np.rint(frame @ LUMA)[..., None], frame.shape).astype(np.uint8)
        images.append(frame.transpose(2, 0, 1))
        labels.append(label)
        strength.append(1 - (1 - least) * hardness)
    return torch.from_numpy(np.stack(images)), torch.tensor(labels), torch.tensor(strength)


def between(hardness: float) -> Conditions:
    """Return conditions between the usual ones, 0, and `HARD`, 1."""
    usual = Conditions()
    return Conditions(
        *(
            getattr(usual, name) + hardness * (getattr(HARD, name) - getattr(usual, name))
            for name in ("light", "noise", "blur", "distance")
        )
    )
