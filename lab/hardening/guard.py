"""Catastrophic overfitting: a network learns to fool the single step that trains it, and many steps find it bare.

Wong, Rice and Kolter 2020, section 5.4: within a few hundred steps the accuracy under PGD falls to nothing while that
under the single step rises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FALL: Final = 0.5
"""Of the best accuracy under PGD: less is a fall that chance does not make of a hundred pictures."""
LEAST: Final = 0.1
"""Accuracy under PGD below which there is nothing yet that could fall."""


@dataclass(frozen=True)
class Look:
    """Shares of held-out frames that were classified right under one step and under PGD, at one moment."""

    one_step: float
    pgd: float


def overfits(best: Look | None, now: Look) -> bool:
    """Whether the network that once looked like `best` fools the single step: that went up and PGD's fell."""
    if best is None or best.pgd < LEAST:
        return False
    return now.pgd < FALL * best.pgd and now.one_step > best.one_step


def milder(steps: int, most: int) -> int:
    """Steps of the attack after a fall: twice as many smaller ones, as far as `most`."""
    return min(2 * steps, most)
