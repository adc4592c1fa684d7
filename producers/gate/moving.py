"""The box of what moves: the largest connected group of blocks that differ from the background and from just before.

A block that differs from the background alone may be empty: something stood there while the background was learned, and
has left. A block that differs from the picture before alone shows where something was. Both together are the hybrid
of Collins et al., "A System for Video Surveillance and Monitoring" (CMU-RI-TR-00-12, 2000).
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
"""Least age of the picture before: in less time, what moves slowly changes too little."""
_KEPT: Final = 64
"""Means that are kept at most: a camera sends up to this many frames in `_BEFORE_MS`."""


class MovingBlocks:
    """The blocks of one camera's pictures that move, picture by picture."""

    def __init__(self) -> None:
        self._before: deque[tuple[int, Means]] = deque(maxlen=_KEPT)

    def next(self, means: Means, background: Means, levels: float, now_ms: int) -> Blocks:
        """Return the blocks that move in a picture at `now_ms`, Unix time: none in the first one of a size."""
        before = self._before
        if before and (before[-1][1].shape != means.shape or now_ms < before[-1][0]):
            before.clear()
        while len(before) > 1 and now_ms - before[1][0] >= _BEFORE_MS:
            before.popleft()
        moving = np.zeros(means.shape, np.bool_)
        if before:
            moving = changed(means, background, levels) & changed(means, before[0][1], levels)
        before.append((now_ms, means))
        return moving


def changed(means: Means, others: Means, levels: float) -> Blocks:
    """Return the blocks that differ from `others` by more than `levels`, the median difference taken off."""
    difference = means - others
    difference -= np.median(difference)
    return np.asarray(np.abs(difference) > levels)


def largest_box(blocks: Blocks) -> Box | None:
    """Return the box, in blocks, of the largest connected group: one block of space does not part it. None if none."""
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
