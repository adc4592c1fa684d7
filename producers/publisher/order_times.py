"""The issue times of the orders that a camera has applied: they decide which orders are old."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from schemas.limits import MAX_AHEAD_MS
from schemas.ranges import RangeSet

_MOST_RANGES: Final = 32
"""Maximum number of stored ranges. Beyond it the nearest but for the newest are joined: the orders between them count
as applied. A range that spans a leap of a clock delays orders by less than the leap."""


class OrderTimes:
    """The issue times of the applied orders of one kind, Unix time in milliseconds.

    The newest decides, unless it lies in the future: either the clock is behind, or it was ahead when the order was
    applied. Then the times that do not lie in the future decide, so no applied order applies again. Orders that are
    new to the camera must also be fresh, because an applied one may have replaced them.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._applied = RangeSet(ranges)

    def add(self, issued_ms: int) -> None:
        """Add an applied order. Later ones do not count any more: the next of them is new again."""
        self._applied.remove(issued_ms + 1, max(issued_ms + 1, self.newest_ms))
        self._applied.add(issued_ms)
        self._applied.join_nearest(_MOST_RANGES, issued_ms - 1)

    @property
    def newest_ms(self) -> int:
        """The newest time; 0 without any."""
        return max((last for _, last in self.ranges()), default=0)

    def shield_ms(self, now_ms: int) -> int:
        """Return the issue time up to which orders are ignored when the camera's clock shows `now_ms`."""
        due_ms, newest_ms = now_ms + MAX_AHEAD_MS, self.newest_ms
        if newest_ms <= due_ms:
            return newest_ms
        return max(now_ms - MAX_AHEAD_MS, *(last for first, last in self.ranges() if first <= due_ms), 0)

    def ranges(self) -> list[tuple[int, int]]:
        """Return the times as ranges, ascending."""
        return list(self._applied.ranges())
