"""The queue of probes for STRIP."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """The part of a probe that the queue reads."""

    @property
    def held_bytes(self) -> int:
        """Memory in bytes that it keeps while it waits."""


P = TypeVar("P", bound=Sized)


class StripQueue(Generic[P]):
    """A bounded queue that may shed: a full one rejects new probes."""

    def __init__(self, limit: int, limit_bytes: int) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._probes: deque[P] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._probes)

    def offer(self, probe: P) -> bool:
        """Add `probe` unless there are too many or they hold too much memory; an empty queue accepts any size."""
        size = probe.held_bytes
        if self._probes and (len(self._probes) >= self._limit or self._bytes + size > self._limit_bytes):
            return False
        self._probes.append(probe)
        self._bytes += size
        return True

    def take(self, count: int) -> list[P]:
        """Remove and return at most `count` of them, oldest first."""
        taken = [self._probes.popleft() for _ in range(min(count, len(self._probes)))]
        self._bytes -= sum(probe.held_bytes for probe in taken)
        return taken

    def discard(self, unwanted: Callable[[P], bool]) -> list[P]:
        """Remove and return those for which `unwanted` is true."""
        everyone = self.take(len(self._probes))
        left = [probe for probe in everyone if not unwanted(probe)]
        self._probes.extend(left)
        self._bytes = sum(probe.held_bytes for probe in left)
        return [probe for probe in everyone if unwanted(probe)]
