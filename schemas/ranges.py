"""Sets of sequence numbers, stored as ranges: the content of ledgers, confirmations and audits."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from heapq import merge


class RangeSet:
    """A set of non-negative integers as sorted ranges that neither touch nor overlap; both ends are included."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    @classmethod
    def of(cls, numbers: Iterable[int]) -> RangeSet:
        """Return the set of these numbers."""
        found = cls()
        for number in sorted(numbers):
            found.add(number)
        return found

    def add(self, first: int, last: int | None = None) -> None:
        """Add first .. last; an empty range (last < first) adds nothing."""
        last = first if last is None else last
        if last < first:
            return
        if self._lasts and first == self._lasts[-1] + 1:
            self._lasts[-1] = last
            return
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]

    def remove(self, first: int, last: int | None = None) -> None:
        """Remove the members from first .. last; an empty range (last < first) removes nothing."""
        last = first if last is None else last
        if last < first:
            return
        low = bisect_left(self._lasts, first)
        high = bisect_right(self._firsts, last)
        if low >= high:
            return
        before = (self._firsts[low], first - 1)
        after = (last + 1, self._lasts[high - 1])
        left = [r for r in (before, after) if r[0] <= r[1]]
        self._firsts[low:high] = [r[0] for r in left]
        self._lasts[low:high] = [r[1] for r in left]

    def join_nearest(self, count: int, below: int) -> None:
        """Add the fewest numbers such that at most `count` ranges are left; each added number is less than `below`.

        More ranges may be left above `below`.
        """
        while len(self._firsts) > count:
            gaps = [
                (self._firsts[place + 1] - self._lasts[place], place)
                for place in range(len(self._firsts) - 1)
                if self._firsts[place + 1] <= below
            ]
            if not gaps:
                return
            _, place = min(gaps)
            self._lasts[place : place + 2] = [self._lasts[place + 1]]
            del self._firsts[place + 1]

    def update(self, other: RangeSet) -> None:
        """Add all of another set, in one pass over both."""
        if other:
            both = RangeSet(merge(self.ranges(), other.ranges())) if self else other.copy()
            self._firsts, self._lasts = both._firsts, both._lasts

    def copy(self) -> RangeSet:
        """Return an independent set of the same members."""
        found = RangeSet()
        found._firsts, found._lasts = self._firsts.copy(), self._lasts.copy()
        return found

    def minus(self, other: RangeSet) -> RangeSet:
        """Return the members that are not in `other`, in one pass over both."""
        if not other:
            return self.copy()
        left = RangeSet()
        removed = other.ranges()
        hole = next(removed, None)
        for first, last in self.ranges():
            while hole is not None and hole[0] <= last:
                if first < hole[0]:
                    left._append(first, hole[0] - 1)
                first = max(first, hole[1] + 1)
                if last < hole[1]:
                    break  # the hole may reach into the next range
                hole = next(removed, None)
            if first <= last:
                left._append(first, last)
        return left

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges (first, last), ascending."""
        return zip(self._firsts, self._lasts, strict=True)

    def _append(self, first: int, last: int) -> None:
        """Add a range beyond all others that does not touch them."""
        self._firsts.append(first)
        self._lasts.append(last)

    def __contains__(self, number: int) -> bool:
        index = bisect_left(self._lasts, number)
        return index < len(self._firsts) and self._firsts[index] <= number

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges():
            yield from range(first, last + 1)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges())

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._firsts == other._firsts and self._lasts == other._lasts

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"RangeSet({list(self.ranges())})"
