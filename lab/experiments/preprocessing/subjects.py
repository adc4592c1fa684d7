"""The protected networks: a bundle, correctly classified pictures, and training pictures for choosing settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks import random_targets
from lab.backdoor.tasks import load_task
from lab.cache import digest
from lab.data import LabelledPictures, batch_slices, to_frames
from processors.bundle import Bundle, load_bundle, shipped_bundle

TABLE_PICTURES: Final = 50
"""Training pictures from which the table is learned. The others choose the settings."""


@dataclass(frozen=True)
class Subject:
    """A network with `pictures` of the test split for evaluation, and held-out `validation` pictures."""

    bundle: Bundle
    pictures: LabelledPictures
    validation: LabelledPictures
    seed: int

    @property
    def name(self) -> str:
        """The subject's name, such as `cifar10`."""
        return self.bundle.settings.name

    def logits(self, frames: Tensor) -> Tensor:
        """Return the bare network's logits (B, classes) of frames (B, C, H, W) in [0, 1] of its own size."""
        return self.bundle.logits(frames)

    @cached_property
    def judged(self) -> Shown:
        """Test pictures that the bare network classifies correctly."""
        return self._right(self.pictures)

    @cached_property
    def chosen_on(self) -> Shown:
        """Validation pictures that the bare network classifies correctly."""
        return self._right(self.validation)

    def _right(self, pictures: LabelledPictures) -> Shown:
        frames, labels = to_frames(pictures.images, self.bundle.device), torch.from_numpy(pictures.labels)
        parts = batch_slices(len(pictures), *pictures.images.shape[1:3])
        with torch.inference_mode():
            right = torch.cat([self.logits(frames[part]).argmax(1) == labels[part] for part in parts])
        generator = torch.Generator().manual_seed(self.seed)
        targets = random_targets(labels, len(self.bundle.settings.classes), generator)
        return Shown(frames[right], labels[right], targets[right], len(pictures))

    def made_from(self) -> tuple[object, ...]:
        """Return the inputs on which results depend."""
        pixels: list[NDArray[np.uint8]] = [self.pictures.images, self.validation.images]
        state = [digest(images.tobytes()) for images in pixels]
        return (self.bundle.model_id, self.bundle.settings.model_dump(exclude={"strip"}), state, self.seed)


@dataclass(frozen=True)
class Shown:
    """Pictures: `frames` (n, C, H, W) in [0, 1], `labels` and random other classes `targets` (n,), out of `total`."""

    frames: Tensor
    labels: Tensor
    targets: Tensor
    total: int

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, which: slice) -> Shown:
        """Return some of them."""
        return Shown(self.frames[which], self.labels[which], self.targets[which], self.total)


SUBJECTS: Final = ("cifar10", "scene128")
LOOKED_AT: Final = {"cifar10": 1000, "scene128": 300}
"""Number of test pictures."""


def load_subject(name: str, data: Path, seed: int) -> Subject:
    """Return the shipped CIFAR-10 network on its test split, or the one for scenes of 128 × 128 pixels."""
    cpu = torch.device("cpu")
    if name == "cifar10":
        task = load_task("cifar10", data)
        return Subject(
            load_bundle(shipped_bundle(name), cpu).bare, task.test.first(LOOKED_AT[name]), task.held_out, seed
        )
    from lab.training.scene128 import FOLDER, TEST_SEED, VALIDATION_SEED, large_scenes

    test = LabelledPictures(name, *large_scenes(TEST_SEED, LOOKED_AT[name]))
    validation = LabelledPictures(name, *large_scenes(VALIDATION_SEED, LOOKED_AT[name]))
    return Subject(load_bundle(FOLDER, cpu).bare, test, validation, seed)
