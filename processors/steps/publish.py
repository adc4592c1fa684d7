"""The step that writes results: verdicts with their pictures, and dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

import structlog

from processors.arrivals.job import FrameJob
from processors.device.batch_executor import picture_of
from processors.device.decode import whole_picture
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Emitter
from processors.results.evidence_limit import EvidenceLimit
from processors.results.preview import HOLES_QUALITY, evidence_png, preview_jpeg
from processors.results.records import OutgoingRecord, dead_letter_record, refusal_record, verdict_record
from processors.results.repeats import Repeats
from processors.settings import ProcessorSettings
from processors.steps.step import Step
from schemas.errors import BadPixelsError, BadSizeError, OverSizeError, typed_text
from schemas.keys.keys import KeyRing
from schemas.runtime import trace
from schemas.runtime.throttle import Throttle

log = structlog.get_logger()

_Pictures: TypeAlias = tuple[bytes, bytes, bytes]
"""The preview of a frame, its evidence, and the picture as sent, each empty if there is none."""

_LASTING: Final = (OverSizeError, BadSizeError, BadPixelsError)
"""Errors that a camera's next frames will have too, until somebody changes its settings."""
_REFUSALS_APART_S: Final = 1.0
_OMISSIONS_APART_S: Final = 60.0


class Publish(Step):
    """Sends the result of each job, and passes the job on when Kafka holds it.

    Jobs that are submitted together, such as a micro-batch, are sent together.
    """

    def __init__(
        self,
        settings: ProcessorSettings,
        keys: KeyRing,
        emitter: Emitter,
        repeats: Repeats,
        metrics: ProcessorMetrics,
    ) -> None:
        """`keys` sign the results. `repeats` gets the verdicts that Kafka holds."""
        self._settings = settings
        self._keys = keys
        self._emitter = emitter
        self._repeats = repeats
        self._metrics = metrics
        self._pictures = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        # The verdicts with previews of other cameras must not wait for the evidence of one.
        self._evidence = ThreadPoolExecutor(1, thread_name_prefix="evidence")
        self._evidence_limit = EvidenceLimit()
        self._omissions: Throttle[str] = Throttle(_OMISSIONS_APART_S)
        self._refusals: Throttle[str] = Throttle(_REFUSALS_APART_S)
        self._submitted: list[FrameJob] = []

    def submit(self, job: FrameJob) -> None:
        """Send the job's result together with those that are submitted before the event loop's next turn."""
        if not self._submitted:
            self._emitter.track(self._send(), "send")
        self._submitted.append(job)

    async def close(self) -> None:
        """Cancel the deliveries in progress."""
        await self._emitter.cancel()
        self._pictures.shutdown(wait=False, cancel_futures=True)
        self._evidence.shutdown(wait=False, cancel_futures=True)

    async def _send(self) -> None:
        jobs, self._submitted = self._submitted, []
        verdicts: list[OutgoingRecord] = []
        pictured: list[FrameJob] = []
        flagged: list[FrameJob] = []
        failed: list[FrameJob] = []
        for job in jobs:
            if job.error is not None:
                failed.append(job)
            elif job.verdict is not None:
                verdicts.append(OutgoingRecord(job.verdict.key, job.verdict.value, job.verdict.headers, job))
            elif job.finding is not None and job.finding.flagged and self._accepts_evidence(job):
                flagged.append(job)
            elif job.shown is not None:
                pictured.append(job)
            else:
                verdicts.append(self._verdict(job))
        if pictured:
            self._emitter.track(self._send_pictured(pictured), "pictures")
        if flagged:
            self._emitter.track(self._send_flagged(flagged), "evidence")
        if failed:
            self._send_failed(failed)
        if verdicts:
            await self._emitter.send(self._settings.verdicts_topic, verdicts, self._delivered)

    def _send_failed(self, failed: Sequence[FrameJob]) -> None:
        """Write dead letters, and inform cameras if the reason holds for their next frames too."""
        topic, now_s = self._settings.frames_topic, time.monotonic()
        letters = [dead_letter_record(self._keys, topic, job) for job in failed]
        self._emitter.post(self._settings.dead_letters_topic, letters, self._delivered)
        lasting = [job for job in failed if isinstance(job.error, _LASTING) and job.record is None]
        refusals = [refusal_record(job) for job in lasting if self._refusals.try_acquire(job.camera_id, now_s)]
        self._emitter.offer(self._settings.events_topic, refusals)

    def _verdict(
        self, job: FrameJob, preview: bytes = b"", evidence: bytes = b"", as_sent: bytes = b""
    ) -> OutgoingRecord:
        # Kafka may need a while to accept the record, and the device's memory must not wait for that.
        job.shown = job.as_sent = job.probe = job.planes = None
        if trace.on():
            trace.stamp("answered", job.identity)
        return verdict_record(self._keys, job, preview, evidence, as_sent)

    def _accepts_evidence(self, job: FrameJob) -> bool:
        """Return whether the flagged frame's picture is sent, and if it is, count it as waiting."""
        now_s = time.monotonic()
        accepted = self._evidence_limit.try_acquire(job.camera_id, _evidence_pixels(job), now_s)
        if not accepted and self._omissions.try_acquire(job.camera_id, now_s):
            log.warning("evidence_omitted", frame=str(job.identity), reason="too many flagged frames")
        return accepted

    async def _send_pictured(self, jobs: Sequence[FrameJob]) -> None:
        loop = asyncio.get_running_loop()
        encoded = await loop.run_in_executor(self._pictures, lambda: [_attempt(job, _previews_of) for job in jobs])
        await self._send_encoded(jobs, encoded)

    async def _send_flagged(self, jobs: Sequence[FrameJob]) -> None:
        loop = asyncio.get_running_loop()
        pixels = sum(map(_evidence_pixels, jobs))
        encoded = await loop.run_in_executor(self._evidence, lambda: [_attempt(job, _pictures_of) for job in jobs])
        self._evidence_limit.release(pixels)
        await self._send_encoded(jobs, encoded)

    async def _send_encoded(self, jobs: Sequence[FrameJob], encoded: Sequence[_Pictures | Exception]) -> None:
        records: list[OutgoingRecord] = []
        for job, pictures in zip(jobs, encoded, strict=True):
            if isinstance(pictures, Exception):
                log.warning("pictures_omitted", frame=str(job.identity), error=typed_text(pictures))
                self._metrics.stage_failed("pictures")
                pictures = b"", b"", b""
            records.append(self._verdict(job, *pictures))
        await self._emitter.send(self._settings.verdicts_topic, records, self._delivered)

    def _delivered(self, record: OutgoingRecord) -> None:
        """Pass on a job whose result Kafka holds."""
        job = record.job
        assert job is not None
        # The cache must not keep the frame in memory.
        record.job = None
        if not job.concluded:
            record.value, record.smaller = record.smaller or record.value, None
            self._repeats.remember(job.identity, record)
        if trace.on() and job.record is None:  # a record without a frame has no identity
            trace.stamp("delivered", job.identity)
        self.next.submit(job)


def _attempt(job: FrameJob, encode: Callable[[FrameJob], _Pictures]) -> _Pictures | Exception:
    """Return the pictures of a frame, or the error: a device or a decoder may fail, but the verdict stands."""
    try:
        return encode(job)
    except Exception as error:  # CUDA's out of memory and its other failures are RuntimeErrors
        return error


def _evidence_pixels(job: FrameJob) -> int:
    """Return height × width of the picture that is the evidence of a flagged frame."""
    probe = job.probe
    return job.shape.pixels if probe is None or job.frame.whole else probe.shape[-2] * probe.shape[-1]


def _pictures_of(job: FrameJob) -> _Pictures:
    """Return the preview of a flagged frame, its evidence, and the picture as sent."""
    preview, _, as_sent = _previews_of(job)
    if job.probe is not None and not job.frame.whole:
        return preview, evidence_png(picture_of(job.probe)), as_sent
    return preview, evidence_png(whole_picture(job)), as_sent


def _previews_of(job: FrameJob) -> _Pictures:
    """Return the preview of a frame, no evidence, and the picture as sent."""
    preview = preview_jpeg(job.shown) if job.shown is not None else b""
    as_sent = b""
    if job.as_sent is not None:
        as_sent = preview_jpeg(job.as_sent) if job.frame.whole else preview_jpeg(job.as_sent, HOLES_QUALITY)
    return preview, b"", as_sent
