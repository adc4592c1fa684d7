"""The step that lets the second model of a rollout judge frames whose verdict Kafka holds already."""

from __future__ import annotations

import asyncio
import time
from copy import copy
from typing import Final

from processors.arrivals.job import FrameJob, PreviewKind
from processors.device.fair_queue import FairQueue
from processors.device.loaded_model import LoadedModel
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Emitter
from processors.results.preview import preview_jpeg
from processors.results.records import OutgoingRecord, answer_of, comparison_record
from processors.settings import ProcessorSettings
from processors.steps.classify import Classify
from processors.steps.step import Step
from schemas.errors import error_text
from schemas.keys.keys import KeyRing
from schemas.pointillist_pb2 import Answer, Rollout
from schemas.runtime.throttle import Throttle

_TIMED: Final = 4
"""One of this many frames is judged by both models once more, each alone, and timed."""
_PICTURES_APART_S: Final = 1.0
_MOST_UNSENT: Final = 64
"""Comparisons that Kafka does not hold yet. While there are as many, as without their topic, frames are dropped."""


class Compare(Step):
    """The frames that wait for the second model, in turns of their cameras. A full queue drops the newest frame of the
    camera with the most waiting ones.

    A job passes this step at once, and its copy waits. `DeviceTurns` runs a comparison when the device is free.
    """

    def __init__(
        self,
        settings: ProcessorSettings,
        keys: KeyRing,
        classify: Classify,
        emitter: Emitter,
        metrics: ProcessorMetrics,
    ) -> None:
        """`keys` sign the comparisons. `classify` has the models."""
        self._settings = settings
        self._keys = keys
        self._classify = classify
        self._emitter = emitter
        self._metrics = metrics
        self._queue: FairQueue[FrameJob] = FairQueue(settings.comparison_queue, settings.comparison_queue_bytes)
        self._pictures: Throttle[str] = Throttle(_PICTURES_APART_S)
        self._count = 0
        self._unsent = 0

    def __len__(self) -> int:
        """Return the number of waiting frames."""
        return len(self._queue)

    def submit(self, job: FrameJob) -> None:
        """Pass on a job, and queue its copy if both models judge it."""
        second, job.second = job.second, None
        self.next.submit(job)
        candidate = self._classify.candidate
        if second is None or candidate is None or job.error is not None:
            return
        second.finding = job.finding
        self._metrics.comparisons["dropped"].inc(len(self._queue.offer(second)))
        self._classify.arrived.set()

    def clear(self) -> None:
        """Drop the waiting frames: the rollout has changed."""
        self._metrics.comparisons["dropped"].inc(len(self._queue.pop(len(self._queue))))

    def next_job(self) -> FrameJob:
        """Remove and return the oldest waiting frame."""
        return self._queue.pop(1)[0]

    async def run(self, first: FrameJob) -> float:
        """Let the other model judge a frame, send both answers, and return the seconds that this took."""
        candidate, live = self._classify.candidate, self._classify.loaded
        if (
            candidate is None
            or first.rollout != candidate.rollout
            or first.model not in (live, candidate.model)
            or self._unsent >= _MOST_UNSENT
        ):
            # A batch from before the last swap, or from before shadow became canary, or Kafka accepts no comparisons.
            self._metrics.comparisons["dropped"].inc()
            return 0.0
        by_candidate = first.model is candidate.model
        failed = Answer(error=first.candidate_error)
        if failed.error and not by_candidate:
            self._send(first, candidate.rollout, answer_of(first), failed, b"")
            return 0.0
        # The candidate may have classified a frame on which its STRIP fails.
        given, other = failed if failed.error else answer_of(first), live if by_candidate else candidate.model
        second, seconds, picture = await self._judge(first, other, given)
        self._count += 1
        answers = (second, given) if by_candidate else (given, second)
        if self._count % _TIMED == 0 and not second.error and not given.error:
            models = (live, candidate.model)
            # Both once more, in turns in either order: the first judgement of a frame fills caches.
            for place in (0, 1) if self._count % (2 * _TIMED) else (1, 0):
                answers[place].seconds = await models[place].classify([_unjudged(first, models[place])])
                seconds += answers[place].seconds
        self._send(first, candidate.rollout, *answers, picture)
        return seconds

    async def _judge(self, first: FrameJob, model: LoadedModel, given: Answer) -> tuple[Answer, float, bytes]:
        """Return a model's answer to a frame, the seconds that it took, and a picture if it differs from `given`."""
        job = _unjudged(first, model)
        job.wanted = PreviewKind.NOTHING if self._pictures.too_soon("", time.monotonic()) else PreviewKind.REBUILT
        seconds = await model.classify([job])
        if job.error is None and job.probe is not None and model.probe_s is not None:
            seconds += await model.strip([job])
        answer = Answer(error=error_text(job.error)) if job.error is not None else answer_of(job)
        differs = not answer.error and not given.error and answer.class_id != given.class_id
        if not differs or job.shown is None:
            return answer, seconds, b""
        self._pictures.note("", time.monotonic())
        return answer, seconds, await asyncio.to_thread(preview_jpeg, job.shown)

    def _send(self, job: FrameJob, rollout: Rollout, live: Answer, candidate: Answer, picture: bytes) -> None:
        record = comparison_record(self._keys, job, rollout, live, candidate, picture)
        self._unsent += 1
        self._emitter.post(self._settings.comparisons_topic, [record], self._sent)
        self._metrics.comparisons["failed" if candidate.error else "compared"].inc()

    def _sent(self, record: OutgoingRecord) -> None:
        self._unsent -= 1


def _unjudged(job: FrameJob, model: LoadedModel) -> FrameJob:
    """Return a copy of a job for another model, without the results of the first."""
    second = copy(job)
    second.model, second.finding, second.probe, second.wanted = model, None, None, PreviewKind.NOTHING
    second.judged_before = True
    return second
