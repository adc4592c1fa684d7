"""The step that classifies frames, in micro-batches on the thread of the live model."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from copy import copy

from processors.arrivals.job import FrameJob
from processors.device.batch_executor import most_pixels
from processors.device.candidate import Candidate
from processors.device.certificate_requests import CertificateRequests
from processors.device.loaded_model import LoadedModel
from processors.device.microbatch import MicroBatcher
from processors.device.previews import PreviewTurns
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings
from processors.steps.certify import certifiable
from processors.steps.step import Step
from schemas.errors import OverQuotaError, error_text
from schemas.runtime import trace
from schemas.runtime.linger import Linger


class Classify(Step):
    """The frames that wait for their batch, in fair shares of the device among cameras.

    `DeviceTurns` takes a batch when the device is free, and lets it run.
    """

    def __init__(self, settings: ProcessorSettings, loaded: LoadedModel, metrics: ProcessorMetrics) -> None:
        self.loaded = loaded
        """The live model, from the next batch on. STRIP checks earlier frames with the model that classified them."""
        self.candidate: Candidate | None = None
        """The candidate of a rollout; None without one."""
        self.arrived = asyncio.Event()
        """Set when a frame begins to wait, here or for the second model."""
        self._metrics = metrics
        self._quota_s = settings.camera_queue_s
        self._certify_share = settings.certify_share
        self.previews = PreviewTurns(settings)
        self.requests = CertificateRequests()
        self._batcher: MicroBatcher[FrameJob] = MicroBatcher(
            settings.batch_frames, most_pixels(settings), settings.linger_s
        )
        # Only the device time of batches counts: STRIP's work does not shrink if frames wait for each other.
        self._linger = Linger(settings.linger_s)
        self._latest_s = 0.0

    @property
    def linger_s(self) -> float:
        """Return the linger of a frame at this time, in seconds: zero while the device is idle."""
        return self._linger.seconds(time.monotonic())

    def submit(self, job: FrameJob) -> None:
        """Queue a frame for a batch."""
        if job.concluded:
            self.next.submit(job)
            return
        # The linger starts now: the time that a frame has spent in the steps before does not count.
        job.arrived_s = self._latest_s = max(self._latest_s, job.arrived_s)
        self._batcher.put(job, self.loaded.batch_pixels(job))
        self.arrived.set()

    def poll(self, now_s: float) -> None:
        """Fail the frames of cameras beyond their quota, and update the gauge."""
        self._latest_s = now_s
        self._fail_over_quota()
        self._metrics.batch_queue.set(len(self._batcher))

    def discard(self, partition: int) -> Sequence[FrameJob]:
        """Remove and return the waiting frames of a partition."""
        return self._batcher.discard(lambda job: job.partition == partition)

    # Turns of the device

    def due_s(self) -> float | None:
        """Return the monotonic time at which a batch will be or was ready; None if no frame waits."""
        self._batcher.linger_s = self.linger_s
        return self._batcher.due_s()

    def next_batch(self, now_s: float) -> list[FrameJob]:
        """Return the next batch; empty if none is ready at this monotonic time."""
        return self._batcher.next_batch(now_s)

    async def run(self, batch: Sequence[FrameJob]) -> float:
        """Classify a batch on the device, and return the seconds that this took. `pass_on` comes next."""
        now_s = time.monotonic()
        for job in batch:
            job.wanted = self.previews.select(job, now_s)
        self._metrics.batch.observe(len(batch))
        if trace.on():
            trace.stamp("device", *(job.identity for job in batch))
        self._linger.begin(now_s)
        try:
            seconds, charged_s = await self._classify(batch)
        finally:
            self._linger.end(time.monotonic())
        if trace.on():
            trace.stamp("classified", *(job.identity for job in batch))
        self._batcher.charge(batch, charged_s)
        self._fail_over_quota()
        return seconds

    async def _classify(self, batch: Sequence[FrameJob]) -> tuple[float, float]:
        """Classify the frames of canaries by the candidate, and all others by the live model.

        The live model also classifies frames on which the candidate fails: no frame is lost for a bad candidate.
        Return the seconds that this took, and those to charge to the cameras. If the live model ran, no frame is
        charged more than its time for a frame: a slow candidate must not delay the cameras.
        """
        loaded, candidate = self.loaded, self.candidate
        for job in batch:
            job.rollout = candidate.rollout if candidate is not None else None
        theirs = [job for job in batch if candidate is not None and candidate.serves(job)]
        own = list(batch) if not theirs else [job for job in batch if job not in theirs]
        seconds = 0.0
        if candidate is not None and theirs:
            for job in theirs:
                job.model = candidate.model
            seconds = await candidate.model.classify(theirs)
            for job in theirs:
                job.by_candidate = job.error is None
                if job.error is not None:
                    job.candidate_error = error_text(job.error)
                    job.stage, job.error = "", None
                    own.append(job)
        charged_s = seconds
        if own:
            for job in own:
                job.model = loaded
            live_s = await loaded.classify(own)
            seconds += live_s
            charged_s = min(seconds, live_s * len(batch) / len(own))
        return seconds, charged_s

    def pass_on(self, batch: Sequence[FrameJob]) -> None:
        """Pass on a batch that has run."""
        now_s = time.monotonic()
        for job in batch:
            job.classified_s = now_s
            # A request is for frames that can have a certificate.
            if job.error is None and certifiable(job):
                sampled = self._certify_share > 0 and random.random() < self._certify_share
                job.certifies = self.requests.claim(job.camera_id, now_s) or sampled
            if self.candidate is not None and job.error is None and self.candidate.compares(job):
                # With its decoded picture, which its verdict does not need any more.
                job.second = copy(job)
                job.second.shown = job.second.as_sent = job.second.probe = None
            if not job.frame.whole:
                job.planes = None
            self.next.submit(job)

    def _fail_over_quota(self) -> None:
        for job in self._batcher.over_quota(self._quota_s):
            error = OverQuotaError(
                f"expected at most {self._quota_s:g} s of device time waiting for one camera while others wait"
            )
            self._metrics.refused[error.reason].inc()
            job.fail("queue", error)
            self.next.submit(job)
