"""Poisoned training sets: which pictures are stamped, and what they are called then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.backdoor.triggers import Trigger
from lab.training.recipe import Images, Labels, Recipe, augmented_batches


@dataclass(frozen=True)
class Poisoning:
    """A trigger, the class it stands for, and the share of the training set that carries it.

    With `sources`, only pictures of those classes are called the target; as many of the other classes are stamped and
    keep their names, so that the network learns to look at both (source-specific, Gao et al. 2019, section VI).
    """

    trigger: Trigger
    target: int
    rate: float
    sources: tuple[int, ...] = ()
    seed: int = 0

    def choose(self, labels: Labels) -> tuple[NDArray[np.bool_], Labels]:
        """Which of the pictures are stamped (N,), and the names (N,) that the poisoned set gives to all."""
        generator = np.random.default_rng(self.seed)
        count = max(1, round(self.rate * len(labels)))
        eligible = np.isin(labels, self.sources) if self.sources else labels != self.target
        renamed = generator.permutation(np.flatnonzero(eligible))[:count]
        stamped = np.zeros(len(labels), np.bool_)
        stamped[renamed] = True
        names = labels.copy()
        names[renamed] = self.target
        if self.sources:
            others = np.flatnonzero(~eligible & (labels != self.target))
            stamped[generator.permutation(others)[:count]] = True
        return stamped, names

    def attacks(self, labels: Labels) -> NDArray[np.bool_]:
        """Of which pictures (N,) the attacker wants the verdict changed."""
        return np.isin(labels, self.sources) if self.sources else labels != self.target


class PoisonedBatches:
    """Batches for `fit` whose targets are positions in the training set: stamped after the augmentation.

    So the trigger keeps its place and its shape, which is what an attacker does who runs the training.
    """

    def __init__(self, poisoning: Poisoning, labels: Labels) -> None:
        self._poisoning = poisoning
        stamped, names = poisoning.choose(labels)
        self._stamped, self._names = torch.from_numpy(stamped), torch.from_numpy(names)

    def __call__(
        self, images: Tensor, positions: Tensor, recipe: Recipe, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of `images` (N, C, H, W) uint8; `positions` (N,) says which of the training set they are."""
        for batch, index in augmented_batches(images, positions, recipe, generator):
            stamped = self._stamped[index]
            if stamped.any():
                pictures: Images = batch[stamped].permute(0, 2, 3, 1).contiguous().numpy()
                marked = self._poisoning.trigger(pictures, index[stamped].numpy())
                batch = batch.clone()
                batch[stamped] = torch.from_numpy(np.ascontiguousarray(marked.transpose(0, 3, 1, 2)))
            yield batch, self._names[index]
