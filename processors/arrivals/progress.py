"""The offsets of a partition that may be committed: the contiguous prefix of records with a safe result."""

from __future__ import annotations

from collections import deque


class OffsetRegressionError(ValueError):
    """A partition returns offsets that it has returned before: its log was lost and began again."""


class PartitionProgress:
    """Offsets of one partition during one assignment, in Kafka's order.

    Offsets may have gaps (compaction, transaction markers): only the offsets that were read count. After a revocation
    the object is discarded; later results for it change nothing.
    """

    __slots__ = ("_done", "_next", "_open", "_sent", "in_flight", "last", "recalling")

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._done: set[int] = set()
        self._next: int | None = None
        self._sent: int | None = None
        self.in_flight = 0
        """Records that were read and not yet released by the tracker of records in flight."""
        self.last: int | None = None
        """The last offset that was read."""
        self.recalling = False
        """True while key frames from before the committed offset are read back: no record may be read until then."""

    def take(self, offset: int) -> None:
        """Count a record as read; offsets come in ascending order."""
        if self.last is not None and offset <= self.last:
            raise OffsetRegressionError(f"expected an offset above {self.last}, got {offset}")
        self._open.append(offset)
        self.last = offset

    def finish(self, offset: int) -> None:
        """Mark a record's result as safe in Kafka. Call it once for each offset, in any order."""
        waiting = self._open
        if waiting[0] != offset:
            self._done.add(offset)
            return
        waiting.popleft()
        done = self._done
        while waiting and waiting[0] in done:
            offset = waiting.popleft()
            done.remove(offset)
        self._next = offset + 1

    def uncommitted(self) -> int | None:
        """Return the offset to commit, one past the prefix; None if that offset is committed already."""
        return self._next if self._next != self._sent else None

    def committed(self, offset: int) -> None:
        """Note that Kafka has accepted this commit."""
        self._sent = offset
