"""The offsets of a partition that may be committed: the contiguous prefix of records with a safe result."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final

_UNREAD_COUNTS: Final = 0.1
"""Share of a second that counts while records are unread: a partition that is never read to its end stops no frame for
ever."""


class OffsetRegressionError(ValueError):
    """A partition returns offsets that it has returned before: its log was lost and began again."""


class PartitionProgress:
    """Offsets of one partition during one assignment, in Kafka's order.

    Offsets may have gaps (compaction, transaction markers): only the offsets that were read count. After a revocation
    the object is discarded; later results for it change nothing.
    """

    __slots__ = ("_done", "_next", "_open", "_sent", "in_flight", "last", "read_s", "recalling")

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
        self.read_s: Callable[[], float] = _now
        """Return the monotonic time up to which all records in Kafka are read; the group's member sets it."""

    def waited_s(self, since_s: float, now_s: float) -> float:
        """Return the seconds that count for a frame that waits for an earlier one since `since_s`.

        While the partition is not read to its end, the earlier frame may lie unread in Kafka.
        """
        return max(min(self.read_s(), now_s) - since_s, _UNREAD_COUNTS * (now_s - since_s))

    def begin(self, offset: int) -> None:
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


def _now() -> float:
    return math.inf
