"""The motion box: the largest connected group of blocks that differ from the background and from an earlier picture.

A block that differs only from the background may be empty: an object stood there while the background was learned, and
has left. A block that differs only from the earlier picture shows the former place of an object. The combination is the
hybrid method of Collins et al., "A System for Video Surveillance and Monitoring" (CMU-RI-TR-00-12, 2000).
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.messages.moving import Box

Means = NDArray[np.float32]
"""(rows, columns), grey levels of 255."""
Blocks = NDArray[np.bool_]
_BEFORE_MS: Final = 300
"""Minimum age of the earlier picture: in less time, a slow object changes too few levels."""
_KEPT: Final = 64
"""Maximum number of stored means: the frames that a camera sends in `_BEFORE_MS`."""


class MovingBlocks:
    """The detector of moving blocks in one camera's pictures."""

    def __init__(self) -> None:
        self._before: deque[tuple[int, Means]] = deque(maxlen=_KEPT)

    def next(self, means: Means, differs: Blocks, levels: float, now_ms: int) -> Blocks:
        """Return the moving blocks of a picture at `now_ms`, Unix time: none in the first picture of a size.

        `differs` are the blocks that differ from the background.
        """
        before = self._before
        if before and (before[-1][1].shape != means.shape or now_ms < before[-1][0]):
            before.clear()
        while len(before) > 1 and now_ms - before[1][0] >= _BEFORE_MS:
            before.popleft()
        moving = np.zeros(means.shape, np.bool_)
        if before:
            moving = differs & changed(means, before[0][1], levels)
        before.append((now_ms, means))
        return moving


def changed(means: Means, others: Means, levels: float) -> Blocks:
    """Return the blocks that differ from `others` by more than `levels` after subtraction of the median difference.

    Blocks that are black both times never differ. They do not show a change of light: a privacy region has none.
    """
    difference, lit = means - others, (means > 0) | (others > 0)
    if lit.any():
        difference -= np.median(difference[lit])
    return np.asarray(lit & (np.abs(difference) > levels))


def largest_box(blocks: Blocks) -> Box | None:
    """Return the box, in blocks, of the largest connected group; None without blocks. Gaps of one block are bridged."""
    rows, columns = (each.tolist() for each in np.nonzero(blocks))
    left = set(zip(rows, columns, strict=True))
    best: list[tuple[int, int]] = []
    while left:
        group = [left.pop()]
        for row, column in group:
            near = [(row + i, column + j) for i in range(-2, 3) for j in range(-2, 3)]
            found = left.intersection(near)
            left -= found
            group += found
        best = max(best, group, key=lambda each: (len(each), each))
    if not best:
        return None
    ys, xs = zip(*best, strict=True)
    return Box(min(ys), max(ys) + 1, min(xs), max(xs) + 1)
