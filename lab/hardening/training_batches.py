"""The batches of a training. Each is a function of its number alone, so a resumed run gets the same ones."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from lab.data import LabelledPictures
from lab.hardening.chance import generator_at
from lab.training.recipe import shifted

_ORDER, _SHIFT = 0, 1


class TrainingBatch(NamedTuple):
    """A batch: frames (B, C, H, W) in [0, 1], labels (B,), and the attack's share of ε for each frame, (B,)."""

    frames: Tensor
    labels: Tensor
    strength: Tensor


class TrainingBatches(Protocol):
    """A source of training batches."""

    def __len__(self) -> int:
        """Return the number of batches in one epoch."""
        ...

    def batch(self, step: int) -> TrainingBatch:
        """Return the frames of one step, counted over all epochs. The frame size may differ between steps."""
        ...


class PictureBatches:
    """Pictures in a new order in every epoch, each shifted by up to an eighth of its side and flipped half the time.

    The last incomplete batch of an epoch is left out.
    """

    def __init__(self, pictures: LabelledPictures, size: int, seed: int, *, flip: bool = True) -> None:
        self.size = size
        self.seed = seed
        self.flip = flip
        self.pad = min(pictures.images.shape[1:3]) // 8
        self._images = torch.from_numpy(np.ascontiguousarray(pictures.images.transpose(0, 3, 1, 2)))
        self._labels = torch.from_numpy(pictures.labels)
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return len(self._labels) // self.size

    def batch(self, step: int) -> TrainingBatch:
        """Return a batch. See `TrainingBatches`."""
        epoch, number = divmod(step, len(self))
        if self._order[0] != epoch:
            order = torch.randperm(len(self._labels), generator=generator_at(self.seed, _ORDER, epoch))
            self._order = epoch, order
        index = self._order[1][number * self.size : (number + 1) * self.size]
        moved = shifted(self._images[index], self.pad, self.flip, generator_at(self.seed, _SHIFT, step))
        return TrainingBatch(moved.float() / 255, self._labels[index], torch.ones(self.size))
