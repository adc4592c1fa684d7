"""Micro-batches: by size or by linger, one shape in each, and no camera above its share while others wait."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar


class Shape(NamedTuple):
    """What all frames of a batch have in common."""

    height: int
    width: int
    channels: int


class Waiting(Protocol):
    """What the batcher asks of a frame."""

    @property
    def camera_id(self) -> str:
        """Whose it is."""

    @property
    def shape(self) -> Shape:
        """Its size."""

    @property
    def arrived_s(self) -> float:
        """When it was taken, by the monotonic clock; does not fall from one `put` to the next."""


W = TypeVar("W", bound=Waiting)


class _Queue(Generic[W]):
    """Frames of one shape: cameras in turn, each camera's frames in their order."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.cameras: OrderedDict[str, deque[W]] = OrderedDict()

    def oldest_s(self) -> float:
        return min(frames[0].arrived_s for frames in self.cameras.values())


class MicroBatcher(Generic[W]):
    """Frames that wait for the device. Who bounds their number is the caller: what is taken counts until it is done."""

    def __init__(self, batch_frames: int, batch_pixels: int, linger_s: float) -> None:
        self._frames = batch_frames
        self._pixels = batch_pixels
        self._linger_s = linger_s
        self._queues: dict[Shape, _Queue[W]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, frame: W) -> None:
        """Let `frame` wait for its batch."""
        shape = frame.shape
        queue = self._queues.get(shape)
        if queue is None:
            limit = max(1, min(self._frames, self._pixels // (shape.height * shape.width)))
            queue = self._queues[shape] = _Queue(limit)
        camera = queue.cameras.get(frame.camera_id)
        if camera is None:
            camera = queue.cameras[frame.camera_id] = deque()
        camera.append(frame)
        queue.size += 1
        self._size += 1

    def due_s(self) -> float | None:
        """When a batch will be or was ready, by the clock of the frames; None when nothing waits."""
        if not self._size:
            return None
        return min(self._ready_s(queue) for queue in self._queues.values())

    def _ready_s(self, queue: _Queue[W]) -> float:
        oldest_s = queue.oldest_s()
        return oldest_s if queue.size >= queue.limit else oldest_s + self._linger_s

    def take(self, now_s: float) -> list[W]:
        """The next batch, or nothing when none is full and no frame has waited for the linger.

        Of several shapes, the one whose oldest frame has waited longest. Each camera gives one frame in turn until the
        batch is full; those that were served go behind those that were not.
        """
        ready = [(queue.oldest_s(), shape) for shape, queue in self._queues.items() if self._ready_s(queue) <= now_s]
        if not ready:
            return []
        shape = min(ready)[1]
        queue = self._queues[shape]
        batch = list(_in_turn(queue))
        queue.size -= len(batch)
        self._size -= len(batch)
        if not queue.size:
            del self._queues[shape]
        return batch

    def discard(self, unwanted: Callable[[W], bool]) -> list[W]:
        """Take out and return the frames of which `unwanted` is true."""
        out: list[W] = []
        for shape, queue in list(self._queues.items()):
            for camera, frames in list(queue.cameras.items()):
                left = deque(frame for frame in frames if not unwanted(frame))
                out.extend(frame for frame in frames if unwanted(frame))
                queue.size -= len(frames) - len(left)
                if left:
                    queue.cameras[camera] = left
                else:
                    del queue.cameras[camera]
            if not queue.size:
                del self._queues[shape]
        self._size -= len(out)
        return out


def _in_turn(queue: _Queue[W]) -> Iterator[W]:
    cameras = queue.cameras
    for _ in range(min(queue.limit, queue.size)):
        camera, frames = next(iter(cameras.items()))
        yield frames.popleft()
        if frames:
            cameras.move_to_end(camera)
        else:
            del cameras[camera]
