"""Unprocessed bytes in Kafka, of each camera and of each partition."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping

from producers.bridge.confirmations import Receipt
from schemas.identity import CameraId


class UnprocessedFrames:
    """Frames by partition in the order of their offsets, each once. Pure bookkeeping, bounded by the backlog."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[tuple[int, Receipt, int]]] = {}
        self._frames: set[Receipt] = set()
        self._bytes: Counter[CameraId] = Counter()
        self._bytes_in: Counter[int] = Counter()

    def __contains__(self, frame: Receipt) -> bool:
        return frame in self._frames

    def bytes_of(self, camera: CameraId) -> int:
        """Return the unprocessed bytes of a camera's frames that this bridge has delivered."""
        return self._bytes.get(camera, 0)

    def mean(self, partition: int) -> float:
        """Return the mean size of a partition's unprocessed frames that this bridge has delivered; 0 without any."""
        waiting = self._waiting.get(partition)
        return self._bytes_in[partition] / len(waiting) if waiting else 0.0

    def add(self, partition: int, first_offset: int, frames: Iterable[tuple[Receipt | None, int]]) -> None:
        """Add frames of these receipts and sizes that Kafka holds from `first_offset` on; a negative offset is
        unknown."""
        if first_offset < 0:
            return
        waiting = self._waiting.setdefault(partition, deque())
        for offset, (frame, size) in enumerate(frames, first_offset):
            if frame is not None and frame not in self._frames:
                waiting.append((offset, frame, size))
                self._frames.add(frame)
                self._bytes[frame.camera_id] += size
                self._bytes_in[partition] += size

    def advance(self, done: Mapping[int, int]) -> None:
        """Update the processors' next offsets."""
        for partition, offset in done.items():
            waiting = self._waiting.get(partition)
            while waiting and waiting[0][0] < offset:
                _, frame, size = waiting.popleft()
                self._remove(partition, frame, size)

    def drop(self, partition: int, lost: range) -> None:
        """Remove the frames of records that Kafka has `lost`: a resend is a new frame."""
        kept: deque[tuple[int, Receipt, int]] = deque()
        for offset, frame, size in self._waiting.get(partition, ()):
            if offset in lost:
                self._remove(partition, frame, size)
            else:
                kept.append((offset, frame, size))
        self._waiting[partition] = kept

    def clear(self) -> None:
        """Remove all frames, because the progress of the processors has never been known."""
        self._waiting.clear()
        self._frames.clear()
        self._bytes.clear()
        self._bytes_in.clear()

    def _remove(self, partition: int, frame: Receipt, size: int) -> None:
        self._frames.remove(frame)
        self._bytes[frame.camera_id] -= size
        self._bytes_in[partition] -= size
        if not self._bytes[frame.camera_id]:
            del self._bytes[frame.camera_id]
