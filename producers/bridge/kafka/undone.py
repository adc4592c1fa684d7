"""Unprocessed bytes in Kafka, of each camera and of each partition."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping

from schemas.identity import CameraId


class Undone:
    """Frames by partition in the order of their offsets. Pure bookkeeping, bounded by the backlog."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[tuple[int, CameraId, int]]] = {}
        self._bytes: Counter[CameraId] = Counter()
        self._bytes_in: Counter[int] = Counter()

    def bytes_of(self, camera: CameraId) -> int:
        """Return the unprocessed bytes of a camera's frames that this bridge has delivered."""
        return self._bytes[camera]

    def mean(self, partition: int) -> float:
        """Return the mean size of a partition's unprocessed frames that this bridge has delivered; 0 without any."""
        waiting = self._waiting.get(partition)
        return self._bytes_in[partition] / len(waiting) if waiting else 0.0

    def add(self, partition: int, first_offset: int, frames: Iterable[tuple[CameraId, int]]) -> None:
        """Add frames of these cameras and sizes that Kafka holds from `first_offset` on; a negative offset is
        unknown."""
        if first_offset < 0:
            return
        waiting = self._waiting.setdefault(partition, deque())
        for offset, (camera, size) in enumerate(frames, first_offset):
            waiting.append((offset, camera, size))
            self._bytes[camera] += size
            self._bytes_in[partition] += size

    def advance(self, done: Mapping[int, int]) -> None:
        """Update the processors' next offsets."""
        for partition, offset in done.items():
            waiting = self._waiting.get(partition)
            while waiting and waiting[0][0] < offset:
                _, camera, size = waiting.popleft()
                self._bytes[camera] -= size
                self._bytes_in[partition] -= size
                if not self._bytes[camera]:
                    del self._bytes[camera]

    def forget(self) -> None:
        """Handle unknown progress of the processors."""
        self._waiting.clear()
        self._bytes.clear()
        self._bytes_in.clear()
