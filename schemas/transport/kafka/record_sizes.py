"""Mean sizes of records, from which a lag in records becomes a lag in bytes."""

from __future__ import annotations

from typing import Final

RECENT: Final = 1000
"""Number of records, up to twice as many, over which a mean size is computed."""


class RecordSizes:
    """Mean size in bytes of the records recently sent to, or read from, each partition."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[float, float]] = {}

    def add(self, partition: int, records: int, size: int) -> None:
        """Count `records` of `size` bytes together of a partition."""
        count, total = self._sums.get(partition, (0.0, 0.0))
        count, total = count + records, total + size
        while count > 2 * RECENT:
            count, total = count / 2, total / 2
        self._sums[partition] = count, total

    def mean(self, partition: int) -> float:
        """Return the mean of a partition, or of all if it has no records; 0 before the first record."""
        count, total = self._sums.get(partition, (0.0, 0.0))
        if not count:
            count = sum(c for c, _ in self._sums.values())
            total = sum(t for _, t in self._sums.values())
        return total / count if count else 0.0
