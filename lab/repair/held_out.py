"""Clean frames that no repair trains on, and what the cured network does to them.

One half of them chooses how far the weights go, the other takes no part in anything and is reported on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MOST_LOST: Final = 0.01
"""Of the held-out clean frames: a network that loses more is not published."""
SHARE: Final = 0.2
"""Of the clean frames, held out of the training."""


@dataclass(frozen=True)
class HeldOut:
    """Paired verdicts on `count` held-out frames: `broken` were right only before the repair, `mended` only after."""

    count: int
    right_before: int
    broken: int
    mended: int

    @property
    def lost(self) -> float:
        """Accuracy lost, from −1 to 1."""
        return (self.broken - self.mended) / self.count

    @property
    def acceptable(self) -> bool:
        """Whether no more than `MOST_LOST` is lost; one frame never decides, however few there are."""
        return self.lost <= MOST_LOST or self.broken - self.mended <= 1

    def describe(self) -> str:
        """What was measured, in a sentence."""
        return (
            f"{self.count} clean frames that took no part in the repair: {self.right_before} right before it, "
            f"{self.right_before - self.broken + self.mended} after it ({self.broken} broken, {self.mended} mended), "
            f"{100 * self.lost:.1f} points lost"
        )


def compare(before: NDArray[np.int64], after: NDArray[np.int64], labels: NDArray[np.int64]) -> HeldOut:
    """Verdicts (N,) of the same frames before and after, against their labels."""
    was, now = before == labels, after == labels
    return HeldOut(len(labels), int(was.sum()), int((was & ~now).sum()), int((now & ~was).sum()))


def split(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Positions to train on, to choose with and to report on: half of `SHARE` of each class for either of the last two,
    as far as it divides.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    ranked = order[np.argsort(labels[order], kind="stable")]
    step = round(1 / SHARE)
    held = ranked[step // 2 :: step]
    return np.sort(np.setdiff1d(order, held)), np.sort(held[1::2]), np.sort(held[::2])
