"""Which offsets of a partition may be committed: the contiguous prefix of those whose result is safe."""

from __future__ import annotations

from collections import deque


class OffsetRegression(ValueError):  # noqa: N818  # what happened, in Kafka and not here
    """A partition gives offsets again that it has given: its log was lost and begun anew."""


class PartitionProgress:
    """Offsets taken from one partition during one assignment, in the order in which Kafka gave them.

    Offsets may have gaps (compaction, transaction markers): what counts is what was taken. After a revocation the
    object is thrown away; results that still come in for it change nothing.
    """

    __slots__ = ("_done", "_next", "_open", "_sent", "in_flight", "last", "recalling")

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._done: set[int] = set()
        self._next: int | None = None
        self._sent: int | None = None
        self.in_flight = 0
        """Taken and not yet released by whoever bounds what is in flight."""
        self.last: int | None = None
        """The offset taken last."""
        self.recalling = False
        """Nothing may be taken yet: key frames from before the committed offset are being read back."""

    def take(self, offset: int) -> None:
        """A record was taken; offsets come in ascending order."""
        if self.last is not None and offset <= self.last:
            raise OffsetRegression(f"expected an offset above {self.last}, got {offset}")
        self._open.append(offset)
        self.last = offset

    def finish(self, offset: int) -> None:
        """The record's result is safe in Kafka; called once for each offset taken, in any order."""
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
        """The offset to commit, one past the prefix; None when `committed` has seen it already."""
        return self._next if self._next != self._sent else None

    def committed(self, offset: int) -> None:
        """Kafka has accepted this commit."""
        self._sent = offset
