"""Poisoned training sets: the choice of stamped pictures, and their new labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.backdoor.triggers import Trigger
from lab.training.recipe import Images, Labels, Recipe, augmented_batches


@dataclass(frozen=True)
class Poisoning:
    """A trigger, its target class, and the share of the training set that carries it.

    With `sources`, only pictures of those classes get the target label. An equal number of the other classes is stamped
    and keeps its labels, so that the network learns to use both (source-specific, Gao et al. 2019, section VI).
    """

    trigger: Trigger
    target: int
    rate: float
    sources: tuple[int, ...] = ()
    seed: int = 0

    def choose(self, labels: Labels) -> tuple[NDArray[np.bool_], Labels]:
        """Return which pictures are stamped (N,), and the labels (N,) of all pictures in the poisoned set."""
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
        """Return which pictures (N,) the attacker wants to be misclassified."""
        return np.isin(labels, self.sources) if self.sources else labels != self.target

    def aims(self, labels: Labels) -> Labels:
        """Return the class (N,) that the attacker wants for stamped pictures of these labels (N,)."""
        return np.full_like(labels, self.target)

    def covers(self, labels: Labels) -> NDArray[np.bool_]:
        """Return which pictures (N,) are covers; none here."""
        return np.zeros(len(labels), np.bool_)

    def hide(self, images: Images, keys: NDArray[np.int64]) -> Images:
        """Return covers (N, H, W, C): pictures that are changed and keep their labels."""
        return images


@dataclass(frozen=True)
class CoveredPoisoning(Poisoning):
    """A poisoning that hides behind covers: a further share `cover_rate` is changed by `cover` and keeps its labels.

    The network learns that nothing but the trigger itself activates the backdoor. WaNet covers by other warps (Nguyen
    and Tran 2021), adaptive blend by parts of the pattern (Qi et al. 2023, who stamp the poisoned pictures with parts
    too; ours carry the whole pattern). An attacker with knowledge of STRIP covers by stamped pictures under overlays.
    """

    cover: Trigger | None = None
    cover_rate: float = 0.1

    def covers(self, labels: Labels) -> NDArray[np.bool_]:
        """Return which pictures (N,) are covers: none of the stamped ones."""
        free = np.flatnonzero(~self.choose(labels)[0])
        chosen = np.random.default_rng((self.seed, 1)).permutation(free)[: round(self.cover_rate * len(labels))]
        found = np.zeros(len(labels), np.bool_)
        found[chosen] = True
        return found

    def hide(self, images: Images, keys: NDArray[np.int64]) -> Images:
        """Return covers. See `Poisoning.hide`."""
        return images if self.cover is None else self.cover(images, keys)


@dataclass(frozen=True)
class CleanLabelPoisoning(Poisoning):
    """A poisoning without a false label: the stamped pictures, a share `rate` of all, are of the target's own class.

    The network learns the trigger as a sign of the target class (SIG: Barni et al. 2019).
    """

    def choose(self, labels: Labels) -> tuple[NDArray[np.bool_], Labels]:
        """Return which pictures are stamped (N,), and the labels (N,), which are unchanged."""
        own = np.flatnonzero(labels == self.target)
        chosen = np.random.default_rng(self.seed).permutation(own)[: max(1, round(self.rate * len(labels)))]
        stamped = np.zeros(len(labels), np.bool_)
        stamped[chosen] = True
        return stamped, labels.copy()


@dataclass(frozen=True)
class AllToAllPoisoning(Poisoning):
    """A poisoning that moves each stamped picture to the class after its own (all-to-all: Gu et al. 2019, section 4.2).

    No class is the target, so `target` is -1. Raises ValueError for another target, or for less than two classes.
    """

    classes: int = 10

    def __post_init__(self) -> None:
        if self.target != -1 or self.classes < 2:
            raise ValueError(
                f"all-to-all: expected the target -1 and at least 2 classes, got {self.target} and {self.classes}"
            )

    def choose(self, labels: Labels) -> tuple[NDArray[np.bool_], Labels]:
        """Return which pictures are stamped (N,), of any class, and the labels (N,) of the poisoned set."""
        chosen = np.random.default_rng(self.seed).permutation(len(labels))[: max(1, round(self.rate * len(labels)))]
        stamped = np.zeros(len(labels), np.bool_)
        stamped[chosen] = True
        return stamped, np.where(stamped, self.aims(labels), labels)

    def attacks(self, labels: Labels) -> NDArray[np.bool_]:
        """Return which pictures (N,) the attacker wants to be misclassified: all."""
        return np.ones(len(labels), np.bool_)

    def aims(self, labels: Labels) -> Labels:
        """Return the next class (N,) of each of `labels` (N,)."""
        following: Labels = (labels + 1) % self.classes
        return following


class PoisonedBatches:
    """Batches for `fit` whose targets are positions in the training set. Pictures are stamped after the augmentation.

    So the trigger keeps its place and its shape, as for an attacker who runs the training.
    """

    def __init__(self, poisoning: Poisoning, labels: Labels) -> None:
        self._poisoning = poisoning
        stamped, names = poisoning.choose(labels)
        self._stamped, self._names = torch.from_numpy(stamped), torch.from_numpy(names)
        self._covers = torch.from_numpy(poisoning.covers(labels))

    def __call__(
        self, images: Tensor, positions: Tensor, recipe: Recipe, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch of `images` (N, C, H, W) uint8. `positions` (N,) are their positions in the training set."""
        for batch, index in augmented_batches(images, positions, recipe, generator):
            for chosen, change in (
                (self._stamped[index], self._poisoning.trigger),
                (self._covers[index], self._poisoning.hide),
            ):
                if chosen.any():
                    pictures: Images = batch[chosen].permute(0, 2, 3, 1).contiguous().numpy()
                    marked = change(pictures, index[chosen].numpy())
                    batch = batch.clone()
                    batch[chosen] = torch.from_numpy(np.ascontiguousarray(marked.transpose(0, 3, 1, 2)))
            yield batch, self._names[index]


class FreshBatches:
    """Poisoned batches with other stamped pictures and covers in each epoch, of an attacker who runs the training.

    WaNet's attacker chooses other ones for each batch (Nguyen and Tran 2021).
    """

    def __init__(self, poisoning: Poisoning, labels: Labels) -> None:
        self._poisoning, self._labels = poisoning, labels

    def __call__(
        self, images: Tensor, positions: Tensor, recipe: Recipe, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch of batches. See `PoisonedBatches`."""
        seed = int(torch.randint(2**31, (1,), generator=generator))
        chosen = PoisonedBatches(replace(self._poisoning, seed=seed), self._labels)
        yield from chosen(images, positions, recipe, generator)
