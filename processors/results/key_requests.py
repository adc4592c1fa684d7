"""Requests to cameras for new key frames."""

from __future__ import annotations

from typing import Final

from processors.arrivals.job import FrameJob
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Emitter
from processors.results.records import key_request_record
from processors.settings import ProcessorSettings
from schemas.identity import Identity
from schemas.runtime.throttle import Throttle

_AGAIN_S: Final = 2.0


class KeyRequests:
    """The requests of one processor: for each key frame, one in a few seconds."""

    def __init__(self, settings: ProcessorSettings, emitter: Emitter, metrics: ProcessorMetrics) -> None:
        self._topic = settings.events_topic
        self._emitter = emitter
        self._metrics = metrics
        self._requested: Throttle[Identity] = Throttle(_AGAIN_S)

    def post(self, job: FrameJob, now_s: float) -> None:
        """Request a key frame in place of the one that a frame depends on or is. `now_s` is monotonic."""
        if self._requested.try_acquire(job.key_identity, now_s):
            self._metrics.key_frames["requested"].inc()
            self._emitter.offer(self._topic, [key_request_record(job)])
