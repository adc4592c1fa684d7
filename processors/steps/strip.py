"""The step that checks probes, the frames that a camera sent whole, with STRIP."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from processors.arrivals.job import FrameJob, StripFinding
from processors.arrivals.partitions import PartitionTracker
from processors.device.fair_queue import FairQueue
from processors.device.memory import lacks_memory
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings
from processors.steps.step import Step
from schemas.errors import error_text
from schemas.runtime import trace


class Strip(Step):
    """The probes that wait for STRIP. A full queue sheds the newest probe of the camera with the most waiting
    ones, and probes that have waited for too long or lack memory are shed as well: they get a verdict without a
    finding.

    `DeviceTurns` takes probes when the device is free, and lets them run.
    """

    def __init__(self, settings: ProcessorSettings, tracker: PartitionTracker, metrics: ProcessorMetrics) -> None:
        self._tracker = tracker
        self._metrics = metrics
        self._wait_s = settings.strip_wait_s
        self._queue: FairQueue[FrameJob] = FairQueue(settings.strip_queue, settings.strip_queue_bytes)

    def __len__(self) -> int:
        """Return the number of waiting probes."""
        return len(self._queue)

    def submit(self, job: FrameJob) -> None:
        """Queue a probe; pass on any other frame."""
        if job.probe is None:
            self.next.submit(job)
        else:
            # It waits under the bound of this queue, and does not count for its partition until `_pass`.
            self._tracker.release(job)
            for each in self._queue.offer(job):
                self._shed(each)

    def poll(self, now_s: float) -> None:
        """Shed the probes that have waited for too long, and update the gauge."""
        for job in self._queue.discard(lambda job: now_s - job.classified_s > self._wait_s):
            self._shed(job)
        self._metrics.strip_queue.set(len(self._queue))

    def discard(self, partition: int) -> Sequence[FrameJob]:
        """Remove and return the waiting probes of a partition."""
        return self._queue.discard(lambda job: job.partition == partition)

    def shed_waiting(self) -> None:
        """Pass on the waiting probes unchecked."""
        for job in self._queue.pop(len(self._queue)):
            self._shed(job)

    def _shed(self, job: FrameJob) -> None:
        job.finding = StripFinding(None, job.model.strip_threshold_bits)
        self._metrics.strip_shed.inc()
        self._pass(job)

    def _pass(self, job: FrameJob) -> None:
        """Pass on a probe that has left the queue: until Kafka has its verdict, it counts for its partition."""
        self._tracker.count_again(job)
        self.next.submit(job)

    # Turns of the device

    def next_batch(self, count: int) -> list[FrameJob]:
        """Remove and return at most `count` probes, oldest first."""
        return self._queue.pop(count)

    async def run(self, probes: Sequence[FrameJob]) -> float:
        """Check probes on the device, and return the seconds that this took. `pass_on` comes next.

        Each is checked with the network, overlays and threshold of the model that classified it.
        """
        seconds = 0.0
        for model, group in groupby(probes, lambda job: job.model):
            seconds += await model.strip(list(group))
        return seconds

    def pass_on(self, probes: Sequence[FrameJob]) -> None:
        """Pass on probes that have run."""
        for job in probes:
            if job.error is not None and (job.by_candidate or lacks_memory(job.error)):
                # No frame is lost for a bad candidate or a lack of memory: its class counts, unchecked. The gate gets
                # a candidate's error.
                if job.by_candidate and job.second is not None:
                    job.second.candidate_error = error_text(job.error)
                job.stage, job.error = "", None
                job.finding = StripFinding(None, job.model.strip_threshold_bits)
                self._metrics.strip_shed.inc()
            finding = job.finding
            if finding is not None:
                if trace.on():
                    trace.stamp("checked", job.identity)
                if finding.entropy_bits is not None:
                    self._metrics.strip_checked(finding.entropy_bits, finding.passes, flagged=finding.flagged)
            self._pass(job)
