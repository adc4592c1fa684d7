"""Back-pressure on the cameras: a frame is confirmed only when the processors are not too far behind it.

Kafka accepts everything. Without this, a fleet that sends as fast as it is confirmed would outrun its processors. A
delayed confirmation keeps the camera's window closed, and the frame in the camera's spool.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from producers.bridge.confirmations import Receipt


class Credit:
    """Receipts of frames in Kafka, released in the order of their offsets. Pure bookkeeping, bounded by the windows."""

    def __init__(self, frames: int, size_bytes: int, confirm: Callable[[Receipt], None]) -> None:
        """Confirms, per partition, at most `frames` records or about `size_bytes` beyond the last known progress of the
        processors, and all records before the first `advance`."""
        self._frames = frames
        self._size_bytes = size_bytes
        self._confirm = confirm
        self._limits: dict[int, int] = {}
        self._waiting: dict[int, deque[tuple[int, Receipt]]] = {}
        self._receipts: set[Receipt] = set()

    def __contains__(self, receipt: Receipt) -> bool:
        return receipt in self._receipts

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._waiting.values())

    def add(self, partition: int, first_offset: int, receipts: Iterable[Receipt | None]) -> None:
        """Add records that Kafka holds from `first_offset` on. With a negative, unknown offset they are confirmed at
        once."""
        limit = self._limits.get(partition)
        waiting = self._waiting.setdefault(partition, deque())
        for offset, receipt in enumerate(receipts, first_offset):
            if receipt is None:
                continue
            if limit is None or first_offset < 0 or (offset < limit and not waiting):
                self._confirm(receipt)
            else:
                waiting.append((offset, receipt))
                self._receipts.add(receipt)

    def advance(self, done: Mapping[int, int], mean_bytes: Callable[[int], float]) -> None:
        """Update the readers' next offsets; `mean_bytes` gives the size of a partition's records, 0 if unknown."""
        for partition, offset in done.items():
            mean = mean_bytes(partition)
            ahead = min(self._frames, max(1, int(self._size_bytes / mean))) if mean else self._frames
            limit = self._limits[partition] = offset + ahead
            waiting = self._waiting.get(partition)
            while waiting and waiting[0][0] < limit:
                self._release(waiting.popleft()[1])

    def drop(self, partition: int, lost: range) -> None:
        """Remove, unconfirmed, the receipts of records that Kafka has `lost`: their cameras send these frames again."""
        kept: deque[tuple[int, Receipt]] = deque()
        for offset, receipt in self._waiting.get(partition, ()):
            if offset in lost:
                self._receipts.discard(receipt)
            else:
                kept.append((offset, receipt))
        self._waiting[partition] = kept

    def _release(self, receipt: Receipt) -> None:
        self._receipts.discard(receipt)
        self._confirm(receipt)
