"""The step that answers repeats: a frame that Kafka delivers again gets its first verdict."""

from __future__ import annotations

from processors.arrivals.job import FrameJob
from processors.results.repeats import Repeats
from processors.steps.step import Step


class Deduplicate(Step):
    """Looks up verdicts that Kafka holds. `Publish` adds them to the same cache."""

    def __init__(self, repeats: Repeats) -> None:
        self._repeats = repeats

    def submit(self, job: FrameJob) -> None:
        """Give a repeat its verdict, and pass it on."""
        if job.error is None:
            job.verdict = self._repeats.find(job.identity)
        self.next.submit(job)
