"""The queue of frames that wait for the device without holding back others, in turns of their cameras."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """The part of a probe that the queue reads."""

    @property
    def camera_id(self) -> str:
        """The camera that sent it."""

    @property
    def held_bytes(self) -> int:
        """Memory in bytes that it keeps while it waits."""


P = TypeVar("P", bound=Sized)


class StripQueue(Generic[P]):
    """A bounded queue that may shed. Cameras take turns, so one that sends many probes displaces its own alone."""

    def __init__(self, limit: int, limit_bytes: int) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._probes: OrderedDict[str, deque[P]] = OrderedDict()
        """The waiting probes of each camera, that of the next turn first."""
        self._count = self._bytes = 0

    def __len__(self) -> int:
        return self._count

    def offer(self, probe: P) -> list[P]:
        """Add `probe`. Return those for which there is no room then: the newest of the camera with most probes, if
        there are too many, or with most bytes. A single probe may have any size.
        """
        self._probes.setdefault(probe.camera_id, deque()).append(probe)
        self._count += 1
        self._bytes += probe.held_bytes
        shed: list[P] = []
        while self._count > 1 and (self._count > self._limit or self._bytes > self._limit_bytes):
            weight = len if self._count > self._limit else _bytes_of
            # The last one of equals, whose turn comes last.
            most = max(reversed(self._probes), key=lambda camera: weight(self._probes[camera]))
            shed.append(self._remove(most, last=True))
        return shed

    def take(self, count: int) -> list[P]:
        """Remove and return at most `count` of them: the oldest of each camera in turn."""
        taken: list[P] = []
        for _ in range(min(count, self._count)):
            camera = next(iter(self._probes))
            taken.append(self._remove(camera))
            if camera in self._probes:
                self._probes.move_to_end(camera)
        return taken

    def discard(self, unwanted: Callable[[P], bool]) -> list[P]:
        """Remove and return those for which `unwanted` is true."""
        found: list[P] = []
        for camera, waiting in list(self._probes.items()):
            gone = [probe for probe in waiting if unwanted(probe)]
            if gone:
                found += gone
                left = [probe for probe in waiting if not unwanted(probe)]
                self._probes[camera] = deque(left)
                if not left:
                    del self._probes[camera]
        self._count -= len(found)
        self._bytes -= sum(probe.held_bytes for probe in found)
        return found

    def _remove(self, camera: str, *, last: bool = False) -> P:
        waiting = self._probes[camera]
        probe = waiting.pop() if last else waiting.popleft()
        if not waiting:
            del self._probes[camera]
        self._count -= 1
        self._bytes -= probe.held_bytes
        return probe


def _bytes_of(waiting: Collection[Sized]) -> int:
    return sum(probe.held_bytes for probe in waiting)
