"""The step that decodes video: frames of the profile `video` become planes, in the order of their groups.

Frames of other profiles pass. A frame waits for the earlier frames of its group within a bound. If it cannot be
decoded, it fails by name, and the step requests a new key frame from the camera.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from processors.arrivals.job import FrameJob
from processors.arrivals.partitions import PartitionTracker
from processors.arrivals.progress import PartitionProgress
from processors.decoding.decoders import VideoDecoders, VideoUnit
from processors.decoding.protocol import picture_bytes
from processors.metrics import ProcessorMetrics
from processors.results.key_requests import KeyRequests
from processors.steps.step import Step
from schemas.errors import PointillistError, StageError, WireError, typed_text
from schemas.identity import CameraId
from schemas.messages.access_unit import open_unit
from schemas.pixels.planes import Planes
from schemas.pointillist_pb2 import VIDEO


class Decode(Step):
    """The frames in the decoders."""

    def __init__(
        self, decoders: VideoDecoders, tracker: PartitionTracker, requests: KeyRequests, metrics: ProcessorMetrics
    ) -> None:
        """`tracker` counts the memory of the pictures, which `queue_bytes` bounds."""
        self._decoders = decoders
        self._tracker = tracker
        self._requests = requests
        self._metrics = metrics
        self._waiting: dict[FrameJob, Future[Planes]] = {}
        self._homes: dict[CameraId, tuple[int, PartitionProgress]] = {}
        """Partitions of the cameras, and their progress."""
        self._counted: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of frames that are being decoded, or wait for an earlier frame."""
        return len(self._waiting)

    @property
    def start_failure(self) -> str:
        """The error because of which frames wait for a decoding process; empty if none does."""
        return self._decoders.start_failure

    def submit(self, job: FrameJob) -> None:
        """Decode a frame of `video`; pass on any other.

        A repeat passes at once. Its unit is held for later frames, if it is not: after a rebalance the decoders begin
        again, and the verdicts are still in the cache.
        """
        if job.error is not None or job.frame.profile != VIDEO:
            self.next.submit(job)
            return
        try:
            unit = video_unit(job)
        except WireError as error:
            self._fail(job, error)
            return
        self._homes[job.camera_id] = job.partition, job.progress
        if job.verdict is not None:
            if not unit.whole:
                self._decoders.restore(unit, displace=False)
            self.next.submit(job)
            return
        job.changed = unit.unit.change
        self._tracker.enlarge(job, picture_bytes(unit.height, unit.width))
        future = self._waiting[job] = self._decoders.submit(unit, job.arrived_s)
        future.add_done_callback(partial(self._decoded, asyncio.get_running_loop(), job))

    def poll(self, now_s: float) -> None:
        """Fail the frames that have waited too long for an earlier one, and update the metrics.

        The time counts while the partition is read to its end, or if it is not read because of the waiting frames.
        """
        waiting = self._waiting_by_partition()
        # Otherwise one camera with missing frames would stop the others of its partition for the whole wait.
        while crowded := self._tracker.overfull_partitions(waiting):
            self._give_up_largest(crowded)
            waiting = self._waiting_by_partition()
        blocked = self._tracker.blocked(self, waiting)

        def waited_s(camera_id: CameraId, since_s: float) -> float:
            partition, progress = self._homes[camera_id]
            return now_s - since_s if partition in blocked else progress.waited_s(since_s, now_s)

        self._decoders.poll(now_s, waited_s)
        counts = self._decoders.counts
        if counts != self._counted:
            for outcome, count in counts.items():
                self._metrics.video_units[outcome].inc(count - self._counted.get(outcome, 0))
            self._counted = counts
        self._metrics.video_held_bytes.set(self._decoders.held_bytes)
        self._metrics.decode_queue.set(len(self))

    def discard(self, partition: int) -> Sequence[FrameJob]:
        """Remove and return the frames of a partition, and drop its cameras' groups.

        Their units are cancelled: while no process can be started, each rebalance would queue all of them again.
        """
        for camera_id in [camera_id for camera_id, home in self._homes.items() if home[0] == partition]:
            del self._homes[camera_id]
            self._decoders.discard(camera_id)
        jobs = [job for job in self._waiting if job.partition == partition]
        for job in jobs:
            self._waiting.pop(job).cancel()
        return jobs

    def _give_up_largest(self, partitions: set[int]) -> None:
        """Give up a group of the camera with the most waiting frames in these partitions."""
        waiting = self._decoders.waiting
        cameras = [camera_id for camera_id in waiting if self._homes[camera_id][0] in partitions]
        self._decoders.give_up(max(cameras, key=lambda camera_id: waiting[camera_id]))

    def _waiting_by_partition(self) -> Counter[int]:
        """Return the number of frames that wait for an earlier one, by partition."""
        waiting = Counter[int]()
        for camera_id, count in self._decoders.waiting.items():
            waiting[self._homes[camera_id][0]] += count
        return waiting

    async def close(self) -> None:
        """End the decoding processes, each after its current frame."""
        self._waiting.clear()
        await asyncio.to_thread(self._decoders.close)

    def _decoded(self, loop: asyncio.AbstractEventLoop, job: FrameJob, future: Future[Planes]) -> None:
        """Return to the event loop; called on a thread of the decoders."""
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._finish, job, future)

    def _finish(self, job: FrameJob, future: Future[Planes]) -> None:
        if job not in self._waiting or future.cancelled():
            return
        del self._waiting[job]
        error = future.exception()
        if error is None:
            job.planes = future.result()
            self.next.submit(job)
        elif isinstance(error, PointillistError):
            self._fail(job, error)
        else:
            self._fail(job, StageError(typed_text(error)))

    def _fail(self, job: FrameJob, error: PointillistError) -> None:
        self._metrics.stage_failed("decode")
        job.fail("decode", error)
        if not job.frame.whole:  # nothing depends on a probe
            self._requests.post(job, job.arrived_s)
        self.next.submit(job)


def video_unit(job: FrameJob) -> VideoUnit:
    """Return the access unit of a verified frame of the profile `video`. Raises `BadPixelsError`."""
    frame = job.frame
    return VideoUnit(
        job.camera_id,
        frame.boot_id,
        frame.seq,
        job.key_identity.seq,
        frame.place,
        frame.captured_ms,
        frame.whole,
        frame.height,
        frame.width,
        open_unit(job.pixels()),
    )
