"""Clean frames on which no repair trains, and the effect of the repair on them.

One half of them chooses the strength of the weight change. The other half is used for the final report alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MOST_LOST: Final = 0.01
"""Largest accuracy loss on the held-out clean frames. A network that loses more is not published."""
SHARE: Final = 0.2
"""Share of the clean frames that is held out of the training."""


@dataclass(frozen=True)
class HeldOut:
    """Paired verdicts on `count` held-out frames: `broken` were correct only before the repair, `mended` only after."""

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
        """True if no more than `MOST_LOST` is lost. A single frame never decides, even among few."""
        return self.lost <= MOST_LOST or self.broken - self.mended <= 1

    def describe(self) -> str:
        """Return the result in a sentence."""
        return (
            f"{self.count} clean frames that took no part in the repair: {self.right_before} right before it, "
            f"{self.right_before - self.broken + self.mended} after it ({self.broken} broken, {self.mended} mended), "
            f"{100 * self.lost:.1f} points lost"
        )


def compare(before: NDArray[np.int64], after: NDArray[np.int64], labels: NDArray[np.int64]) -> HeldOut:
    """Compare verdicts (N,) on the same frames before and after, against their labels."""
    was, now = before == labels, after == labels
    return HeldOut(len(labels), int(was.sum()), int((was & ~now).sum()), int((now & ~was).sum()))


def split(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions for training, for choosing and for reporting.

    Each of the last two gets half of `SHARE` of each class, as far as it divides.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    ranked = order[np.argsort(labels[order], kind="stable")]
    step = round(1 / SHARE)
    held = ranked[step // 2 :: step]
    return np.sort(np.setdiff1d(order, held)), np.sort(held[1::2]), np.sort(held[::2])
