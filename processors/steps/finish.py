"""The last step: a job is finished when Kafka holds its verdict or dead letter."""

from __future__ import annotations

from processors.arrivals.job import FrameJob
from processors.arrivals.partitions import PartitionTracker
from processors.metrics import ProcessorMetrics
from processors.steps.step import Step


class Finish(Step):
    """Counts jobs, and lets their offsets be committed. A job that is cancelled before is delivered again."""

    def __init__(self, tracker: PartitionTracker, metrics: ProcessorMetrics) -> None:
        self._tracker = tracker
        self._metrics = metrics

    def submit(self, job: FrameJob) -> None:
        """Finish a job."""
        (self._metrics.classified if job.error is None else self._metrics.dead_lettered).inc()
        self._tracker.finish(job)
