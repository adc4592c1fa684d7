"""Micro-batches by size or linger, one shape in each, with fair shares of the device among cameras.

The shared resource is device time: the camera with the least use goes first. A camera's waiting frames are limited if
it has more than the others: its frames occupy partitions that others use.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Generic, Protocol, TypeVar

from processors.arrivals.job import Shape
from processors.time_shares import TimeShares

_PRESENT_S: Final = 60.0
"""Seconds after its last frame for which a camera counts as one that shares the device."""
_OF_THE_OTHERS: Final = 2.0
"""Multiple of the others' average waiting time from which a camera's quota is checked."""


class BatchableFrame(Protocol):
    """The parts of a frame that the batcher reads."""

    @property
    def camera_id(self) -> str:
        """Its camera."""

    @property
    def shape(self) -> Shape:
        """Its size."""

    @property
    def arrived_s(self) -> float:
        """Time of its arrival by the monotonic clock; it does not fall from one `put` to the next."""


W = TypeVar("W", bound=BatchableFrame)


class _Queue(Generic[W]):
    """Frames of one shape: cameras in turn, each camera's frames in their order."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.cameras: OrderedDict[str, deque[W]] = OrderedDict()

    def oldest_s(self) -> float:
        return min(frames[0].arrived_s for frames in self.cameras.values())


class MicroBatcher(Generic[W]):
    """Frames that wait for the device. The caller limits their number: a frame counts until its verdict is done."""

    def __init__(self, batch_frames: int, batch_pixels: int, linger_s: float) -> None:
        self.linger_s = linger_s
        """Seconds for which a frame waits for others; may change at any time."""
        self._frames = batch_frames
        self._pixels = batch_pixels
        self._queues: dict[Shape, _Queue[W]] = {}
        self._size = 0
        self._shares = TimeShares()
        self._present: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return self._size

    def put(self, frame: W, pixels: int | None = None) -> None:
        """Queue `frame` for a batch, in which it counts for this many `pixels`; None for all of its own."""
        shape = frame.shape
        queue = self._queues.get(shape)
        if queue is None:
            queue = self._queues[shape] = _Queue(self._frames)
        queue.limit = min(queue.limit, max(1, self._pixels // (pixels or shape.pixels)))
        camera = queue.cameras.get(frame.camera_id)
        if camera is None:
            camera = queue.cameras[frame.camera_id] = deque()
        camera.append(frame)
        queue.size += 1
        self._size += 1
        self._present[frame.camera_id] = frame.arrived_s
        self._present.move_to_end(frame.camera_id)
        while next(iter(self._present.values())) < frame.arrived_s - _PRESENT_S:
            self._present.popitem(last=False)

    def due_s(self) -> float | None:
        """Return the time at which a batch will be or was ready, by the clock of the frames; None if no frame waits."""
        if not self._size:
            return None
        return min(self._ready_s(queue) for queue in self._queues.values())

    def _ready_s(self, queue: _Queue[W]) -> float:
        oldest_s = queue.oldest_s()
        return oldest_s if queue.size >= queue.limit else oldest_s + self.linger_s

    def next_batch(self, now_s: float) -> list[W]:
        """Return the next batch; empty if none is full and no frame has waited for the linger.

        Of several shapes, the first has the camera with the least device time; on a tie, the longest waiting frame
        decides. Each camera gives one frame in turn until the batch is full, beginning with the least device time.
        Served cameras go behind the others.
        """
        ready = [
            (self._shares.least_used_s(queue.cameras), queue.oldest_s(), shape)
            for shape, queue in self._queues.items()
            if self._ready_s(queue) <= now_s
        ]
        if not ready:
            return []
        shape = min(ready)[2]
        queue = self._queues[shape]
        for camera_id in self._shares.ahead(queue.cameras):
            queue.cameras.move_to_end(camera_id)
        batch = list(_in_turn(queue))
        self._left(shape, len(batch))
        return batch

    def _left(self, shape: Shape, count: int) -> None:
        queue = self._queues[shape]
        queue.size -= count
        self._size -= count
        if not queue.size:
            del self._queues[shape]

    def charge(self, batch: Sequence[W], seconds: float) -> None:
        """Charge a batch that had the device for `seconds`."""
        self._shares.charge([frame.camera_id for frame in batch], batch[0].shape.pixels, seconds)

    def over_quota(self, quota_s: float) -> list[W]:
        """Remove and return frames of cameras beyond `quota_s` of device time, if there are other cameras.

        This concerns only a camera with more waiting than the others' average: in an overload by all of them, such as
        after an outage, frames wait. The newest of its most expensive frames go, and one always stays.
        """
        frame_s = {shape: self._shares.frame_s(shape.pixels) for shape in self._queues}
        all_s = sum(frame_s[shape] * queue.size for shape, queue in self._queues.items())
        if all_s <= quota_s or len(self._present) < 2:
            return []
        waiting_s: dict[str, float] = {}
        for shape, queue in self._queues.items():
            for camera_id, frames in queue.cameras.items():
                waiting_s[camera_id] = waiting_s.get(camera_id, 0.0) + frame_s[shape] * len(frames)
        out: list[W] = []
        for camera_id, own_s in waiting_s.items():
            others = len(self._present) - (camera_id in self._present)
            if others:
                limit_s = max(quota_s, _OF_THE_OTHERS * (all_s - own_s) / others)
                out += self._remove_excess(camera_id, own_s - limit_s, frame_s)
        return out

    def _remove_excess(self, camera_id: str, excess_s: float, frame_s: Mapping[Shape, float]) -> list[W]:
        """Remove the newest of a camera's most expensive frames until the rest takes `excess_s` less; one stays."""
        out: list[W] = []
        own = [shape for shape, queue in self._queues.items() if camera_id in queue.cameras]
        own.sort(key=frame_s.__getitem__)
        while excess_s > 0:
            shape = own[-1]
            frames = self._queues[shape].cameras[camera_id]
            if len(frames) == len(own) == 1:
                break
            out.append(frames.pop())
            excess_s -= frame_s[shape]
            if not frames:
                del self._queues[shape].cameras[camera_id]
                own.pop()
            self._left(shape, 1)
        return out

    def discard(self, unwanted: Callable[[W], bool]) -> list[W]:
        """Remove and return the frames for which `unwanted` is true, as at the loss of a partition.

        A camera without a waiting frame then counts as present again from its next frame. The cameras of a lost
        partition have left, and would lower the average that a quota compares with.
        """
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
        waiting = {camera for queue in self._queues.values() for camera in queue.cameras}
        self._present = OrderedDict((camera, at_s) for camera, at_s in self._present.items() if camera in waiting)
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
