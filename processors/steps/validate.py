"""The step that verifies records: each becomes a frame of an accepted size, or fails."""

from __future__ import annotations

from processors.arrivals.job import FrameJob
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings
from processors.steps.step import Step
from schemas.errors import OverSizeError, WireError
from schemas.keys.keys import KeyRing
from schemas.messages.frame_size import over_size
from schemas.runtime import trace


class Validate(Step):
    """Opens records. A record without a verified frame, or with too large a frame, fails."""

    def __init__(self, settings: ProcessorSettings, keys: KeyRing, metrics: ProcessorMetrics) -> None:
        self._most_pixels = settings.max_frame_pixels
        self._keys = keys
        self._metrics = metrics
        self._raw_bytes = self._sent_bytes = 0

    def submit(self, job: FrameJob) -> None:
        """Verify the record, and pass it on."""
        try:
            job.open(self._keys)
        except WireError as error:
            job.fail("validate", error)
            self._metrics.stage_failed("validate")
        else:
            self._check(job)
        self.next.submit(job)

    def _check(self, job: FrameJob) -> None:
        if job.traceparent is not None:
            job.traceparent = trace.follow("processor", job.identity, job.traceparent)
        if trace.on():
            trace.stamp("fetched", job.identity)
        shape = job.shape
        if shape.pixels > self._most_pixels:
            error = OverSizeError(over_size(shape.width, shape.height, self._most_pixels))
            self._metrics.refused[error.reason].inc()
            job.fail("validate", error)
            return
        self._raw_bytes += shape.values
        self._sent_bytes += job.frame_bytes

    def poll(self, now_s: float) -> None:
        """Count the bytes of the verified frames."""
        self._metrics.count_pixels(self._raw_bytes, self._sent_bytes)
        self._raw_bytes = self._sent_bytes = 0
