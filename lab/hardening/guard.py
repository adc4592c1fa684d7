"""A guard against catastrophic overfitting: the network fools the single training step but fails under many steps.

Wong, Rice and Kolter 2020, section 5.4: within a few hundred steps the accuracy under PGD falls to zero, while the
accuracy under the single step rises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FALL: Final = 0.5
"""Share of the best accuracy under PGD. A lower accuracy is a significant fall on a hundred pictures."""
LEAST: Final = 0.1
"""Accuracy under PGD below which a fall cannot be detected."""


@dataclass(frozen=True)
class Look:
    """The accuracies on held-out frames under one step and under PGD, at one moment."""

    one_step: float
    pgd: float


def overfits(best: Look | None, now: Look) -> bool:
    """Return whether the network fools the single step: since `best`, that accuracy rose and PGD's fell."""
    if best is None or best.pgd < LEAST:
        return False
    return now.pgd < FALL * best.pgd and now.one_step > best.one_step


def milder(steps: int, most: int) -> int:
    """Return the steps of the attack after a fall: twice as many smaller ones, up to `most`."""
    return min(2 * steps, most)
