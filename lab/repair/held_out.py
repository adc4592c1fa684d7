"""Clean frames on which no repair trains, and the effect of the repair on them.

One half of them chooses the strength of the weight change. The other half is used for the final report alone.

With 500 clean frames, a half has 50. One wrong verdict more is a loss of two points, and any change of the weights
changes some verdicts by chance. Therefore each frame is judged in several views, shifted and mirrored as in the
training. A t-test on the mean of each frame's views decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

MOST_LOST: Final = 0.01
"""A network whose loss of accuracy on held-out clean frames is significantly larger is not published."""
MOST_MEASURED: Final = 0.05
"""A network whose measured loss is larger is not published either, significant or not."""
CONFIDENCE: Final = 0.95
"""Confidence of the one-sided test against `MOST_LOST`."""
SHARE: Final = 0.2
"""Share of the clean frames that is held out of the training."""


@dataclass(frozen=True)
class HeldOut:
    """Paired verdicts on `count` held-out frames.

    `broken` frames were correct only before the repair, `mended` ones only after. `lost` is the accuracy lost over all
    views of the frames, from −1 to 1, and `error` its standard error over the frames: 0 for a single one.
    """

    count: int
    right_before: int
    broken: int
    mended: int
    lost: float
    error: float

    @property
    def acceptable(self) -> bool:
        """Whether the loss is at most `MOST_MEASURED`, and not significantly above `MOST_LOST`.

        A single frame never decides, even among few.
        """
        if self.lost * self.count <= 1:
            return True
        least = self.lost - float(stats.t.ppf(CONFIDENCE, self.count - 1)) * self.error
        return self.lost <= MOST_MEASURED and least <= MOST_LOST

    def describe(self) -> str:
        """Return the result in a sentence."""
        return (
            f"{self.count} clean frames that took no part in the repair: {self.right_before} right before it, "
            f"{self.right_before - self.broken + self.mended} after it ({self.broken} broken, {self.mended} mended), "
            f"{100 * self.lost:.1f} points lost over all views"
        )


def compare(before: NDArray[np.int64], after: NDArray[np.int64], labels: NDArray[np.int64]) -> HeldOut:
    """Compare verdicts (V, N) on V views of the same N frames before and after, against the frames' labels.

    The first view is the frame itself.
    """
    was, now = before == labels, after == labels
    lost = was.mean(0) - now.mean(0)
    error = float(lost.std(ddof=1)) / math.sqrt(len(labels)) if len(labels) > 1 else 0.0
    return HeldOut(
        len(labels), int(was[0].sum()), int((was[0] & ~now[0]).sum()), int((now[0] & ~was[0]).sum()),
        float(lost.mean()), error,
    )  # fmt: skip


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
