"""A bounded queue of frames that takes their cameras in turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar


class QueuedFrame(Protocol):
    """The part of a frame that the queue reads."""

    @property
    def camera_id(self) -> str:
        """The camera that sent it."""

    @property
    def held_bytes(self) -> int:
        """Memory in bytes that it keeps while it waits."""


F = TypeVar("F", bound=QueuedFrame)


class FairQueue(Generic[F]):
    """Frames that wait for the device. A camera that sends many displaces its own frames, and none of other cameras."""

    def __init__(self, limit: int, limit_bytes: int) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._waiting: OrderedDict[str, deque[F]] = OrderedDict()
        """The frames of each camera, that of the next turn first."""
        self._count = self._bytes = 0

    def __len__(self) -> int:
        return self._count

    def offer(self, frame: F) -> list[F]:
        """Add `frame`, and return the frames that had to make room.

        While too many frames wait, the newest frame of the camera with the most frames is removed. While they hold too
        much memory, it is that of the camera with the most bytes. The last frame stays, whatever its size.
        """
        self._waiting.setdefault(frame.camera_id, deque()).append(frame)
        self._count += 1
        self._bytes += frame.held_bytes
        shed: list[F] = []
        while self._count > 1 and (self._count > self._limit or self._bytes > self._limit_bytes):
            weight = len if self._count > self._limit else _bytes_of
            # The last one of equals, whose turn comes last.
            most = max(reversed(self._waiting), key=lambda camera: weight(self._waiting[camera]))
            shed.append(self._remove(most, last=True))
        return shed

    def pop(self, count: int) -> list[F]:
        """Remove and return at most `count` of them: the oldest of each camera in turn."""
        taken: list[F] = []
        for _ in range(min(count, self._count)):
            camera = next(iter(self._waiting))
            taken.append(self._remove(camera))
            if camera in self._waiting:
                self._waiting.move_to_end(camera)
        return taken

    def discard(self, unwanted: Callable[[F], bool]) -> list[F]:
        """Remove and return those for which `unwanted` is true."""
        found: list[F] = []
        for camera, waiting in list(self._waiting.items()):
            gone = [frame for frame in waiting if unwanted(frame)]
            if gone:
                found += gone
                left = [frame for frame in waiting if not unwanted(frame)]
                self._waiting[camera] = deque(left)
                if not left:
                    del self._waiting[camera]
        self._count -= len(found)
        self._bytes -= sum(frame.held_bytes for frame in found)
        return found

    def _remove(self, camera: str, *, last: bool = False) -> F:
        waiting = self._waiting[camera]
        frame = waiting.pop() if last else waiting.popleft()
        if not waiting:
            del self._waiting[camera]
        self._count -= 1
        self._bytes -= frame.held_bytes
        return frame


def _bytes_of(waiting: Collection[QueuedFrame]) -> int:
    return sum(frame.held_bytes for frame in waiting)
