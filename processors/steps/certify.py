"""The step that certifies labels against stickers, on a share of the frames and on the probes that STRIP flags."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog

from processors.arrivals.job import FrameJob
from processors.arrivals.partitions import PartitionTracker
from processors.device.fair_queue import FairQueue
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings
from processors.steps.step import Step
from schemas.errors import typed_text
from schemas.pointillist_pb2 import VIDEO

_DECAY: Final = 0.7
"""Factor of the expected time after each shorter certificate."""
_LONGEST: Final = 0.9
"""Share of the wait that a certificate is expected to take at most: a frame that has just come is always tried."""

log = structlog.get_logger()


class Certify(Step):
    """The frames that wait for their certificate, in turns of their cameras. A full queue sheds the newest frame
    of the camera with the most waiting ones: it gets a verdict without one.

    So do frames that have waited for too long: Kafka's offset of their partition waits for them, and with it the
    confirmations of all its cameras. A frame leaves the queue as soon as its certificate would come too late.

    `DeviceTurns` lets the first one go on when the device is free, a batch of passes at a time.
    """

    def __init__(
        self, settings: ProcessorSettings, tracker: PartitionTracker, metrics: ProcessorMetrics, arrived: asyncio.Event
    ) -> None:
        """`arrived` wakes the device's turns."""
        self._tracker = tracker
        self._metrics = metrics
        self._arrived = arrived
        self._wait_s = settings.certify_wait_s
        self._queue: FairQueue[FrameJob] = FairQueue(settings.certify_queue, settings.certify_queue_bytes)
        self._current: FrameJob | None = None
        self._begun_s = 0.0
        self._takes_s = 0.0
        """Expected seconds from the first pass of a certificate to its last; short ones lower it slowly."""
        self._drains = 0
        self._running = False

    def __len__(self) -> int:
        """Return the number of waiting frames, with the one in progress and without one that has its certificate."""
        in_progress = self._current is not None and self._current.certified is None and not self._drains
        return len(self._queue) + in_progress

    def submit(self, job: FrameJob) -> None:
        """Queue a frame whose label is to be certified; pass on any other one."""
        flagged = job.finding is not None and job.finding.flagged
        if job.concluded or not (job.certifies or flagged) or not certifiable(job):
            self.next.submit(job)
        elif self._drains:
            self._shed(job)
        else:
            # It waits under the bound of this queue, and does not count for its partition until `_pass`.
            self._tracker.release(job)
            self._arrived.set()
            for each in self._queue.offer(job):
                self._shed(each)

    def poll(self, now_s: float) -> None:
        """Shed the frames that have waited for too long."""
        self._shed_late(now_s)
        if not self._running:
            self.pass_on()

    def discard(self, partition: int) -> Sequence[FrameJob]:
        """Remove and return the waiting frames of a partition."""
        return self._queue.discard(lambda job: job.partition == partition)

    @contextmanager
    def shedding(self) -> Iterator[None]:
        """Within the context, waiting and later frames pass on without a certificate. Contexts may overlap."""
        self._drains += 1
        try:
            for job in self._queue.pop(len(self._queue)):
                self._shed(job)
            if not self._running:
                self.pass_on()
            yield
        finally:
            self._drains -= 1

    def _is_late(self, job: FrameJob, now_s: float) -> bool:
        return now_s - job.classified_s > self._wait_s

    def _shed_late(self, now_s: float) -> None:
        # Otherwise each frame would begin with too little time left while more come than the device can certify.
        late = self._queue.discard(lambda job: self._is_late(job, now_s + self._takes_s))
        for job in late:
            self._shed(job)
        if late and self._current is None and not len(self._queue):
            # None is tried, so nothing else would correct the expected time.
            self._takes_s *= _DECAY

    def _shed(self, job: FrameJob) -> None:
        self._metrics.certificates["shed"].inc()
        self._pass(job)

    def _pass(self, job: FrameJob) -> None:
        """Pass on a frame that has left the queue: until Kafka has its verdict, it counts for its partition."""
        self._tracker.count_again(job)
        self.next.submit(job)

    # Turns of the device

    async def run(self) -> float:
        """Go on with the first certificate, and return the seconds that this took. `pass_on` comes next.

        Does nothing if the last frame was shed after this turn had been chosen.
        """
        if self._current is None:
            self._begun_s = time.monotonic()
            self._shed_late(self._begun_s)
            if not len(self._queue):
                return 0.0
            (self._current,) = self._queue.pop(1)
        job, self._running = self._current, True
        try:
            return await job.model.certify(job)
        except (Exception, SystemExit) as error:  # a user's network may raise anything, and the verdict stands without
            log.warning("certificate_failed", frame=str(job.identity), error=typed_text(error))
            self._current = None
            job.certification = None
            self._metrics.certificates["failed"].inc()
            self._pass(job)
            return 0.0
        finally:
            self._running = False

    def pass_on(self) -> None:
        """Pass on the frame if it has its certificate, or does not get one any more."""
        job, now_s = self._current, time.monotonic()
        if job is None:
            return
        if job.certified is None and not self._drains and not self._is_late(job, now_s):
            return
        self._current, job.certification = None, None
        self._takes_s = max(_DECAY * self._takes_s, min(now_s - self._begun_s, _LONGEST * self._wait_s))
        if job.certified is None:
            self._shed(job)
            return
        self._metrics.certificates["certified" if job.certified.certified else "uncertified"].inc()
        self._pass(job)


def certifiable(job: FrameJob) -> bool:
    """Return whether a certificate of a frame would hold.

    A video codec spreads a sticker over its blocks and over later frames. A square of the policy `motion` may follow
    the sticker. A candidate of a rollout certifies nothing.
    """
    follows = job.model.policy == "motion" and job.frame.moving
    return job.model.certifies and job.frame.profile != VIDEO and not follows
