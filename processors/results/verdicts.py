"""The output of results: verdicts with their pictures, and dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import numpy as np
import structlog
from aiokafka import ConsumerRecord

from processors.arrivals.frames import TakenFrame
from processors.device.batch_executor import Failed, picture_of
from processors.device.loop import Classification
from processors.results.delivery import Emitter
from processors.results.preview import HOLES_QUALITY, evidence_png, preview_jpeg
from processors.results.records import (
    Outgoing,
    failed_record,
    key_request_record,
    refusal_record,
    refused_record,
    verdict_record,
)
from processors.results.repeats import Repeats
from processors.settings import ProcessorSettings
from schemas.errors import BadPixels, BadSize, OverSize, WireError
from schemas.keys.keys import KeyRing
from schemas.pixels.packing import Picture, unpack
from schemas.runtime import trace
from schemas.runtime.throttle import Throttle

log = structlog.get_logger()

_LASTING: Final = (OverSize, BadSize, BadPixels)
"""Errors that a camera's next frames will have too, until somebody changes its settings."""
_REFUSALS_APART_S: Final = 1.0


class VerdictPublisher:
    """Sends results in its own tasks; the `done` of a frame or record is called when Kafka holds its result."""

    def __init__(
        self,
        settings: ProcessorSettings,
        keys: KeyRing,
        emitter: Emitter,
        recorded: Callable[[TakenFrame], None],
        failed: Callable[[TakenFrame], None],
        pictures_failed: Callable[[], None] = lambda: None,
    ) -> None:
        """`keys` sign the results. `recorded` and `failed` get the frames whose verdict or dead letter Kafka holds.

        `pictures_failed` is called for each verdict without its pictures.
        """
        self._settings = settings
        self._keys = keys
        self._emitter = emitter
        self._recorded = recorded
        self._failed = failed
        self._pictures_failed = pictures_failed
        self._pictures = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._repeats = Repeats()
        self._again: list[Outgoing] = []
        self._refusals: Throttle[str] = Throttle(_REFUSALS_APART_S)
        self._sending: set[asyncio.Task[None]] = set()
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the error of a delivery that failed by a defect; Kafka's own failures are retried."""

    def conclude(self, ready: Sequence[Classification], failed: Sequence[tuple[TakenFrame, Failed]]) -> None:
        """Write the verdicts of `ready` and the dead letters of `failed`."""
        plain: list[Outgoing] = []
        pictured: list[Classification] = []
        for found in ready:
            if found.shown is None and not (found.finding is not None and found.finding.flagged):
                plain.append(self._verdict(found))
            else:
                pictured.append(found)
        self._send(self._settings.verdicts_topic, plain)
        if pictured:
            self._track(self._send_pictured(pictured), "pictures")
        topic = self._settings.frames_topic
        letters = [
            failed_record(self._keys, topic, taken, failure.stage, failure.error, partial(self._failed, taken))
            for taken, failure in failed
        ]
        self._send(self._settings.dead_letters_topic, letters)
        self._send_refusals(failed)

    def _send_refusals(self, failed: Sequence[tuple[TakenFrame, Failed]]) -> None:
        """Inform cameras about rejected frames if the reason holds for their next frames too."""
        now_s = time.monotonic()
        refusals = [
            refusal_record(taken, failure.error, _nothing)
            for taken, failure in failed
            if isinstance(failure.error, _LASTING) and self._refusals.take(taken.camera_id, now_s)
        ]
        self._send(self._settings.events_topic, refusals)

    def repeat(self, taken: TakenFrame) -> bool:
        """Give a repeated frame its previous verdict; return false if that is not cached."""
        known = self._repeats.find(taken.identity)
        if known is None:
            return False
        again = Outgoing(known.key, known.value, known.headers, partial(self._recorded, taken))
        self._again.append(again)
        return True

    def send_repeats(self) -> None:
        """Write the verdicts that `repeat` has collected."""
        again, self._again = self._again, []
        self._send(self._settings.verdicts_topic, again)

    def refuse(self, refused: Sequence[tuple[ConsumerRecord, WireError, Callable[[], None]]]) -> None:
        """Write the dead letters of records without a verified frame."""
        letters = [
            refused_record(
                self._keys, record.topic, record.partition, record.offset, record.key, record.value or b"", error, done
            )
            for record, error, done in refused
        ]
        self._send(self._settings.dead_letters_topic, letters)

    def request_key(self, taken: TakenFrame) -> None:
        """Request a new key frame from the camera, instead of the one that a frame depends on."""
        self._send(self._settings.events_topic, [key_request_record(taken, _nothing)])

    def _verdict(
        self, found: Classification, preview: bytes = b"", evidence: bytes = b"", as_sent: bytes = b""
    ) -> Outgoing:
        taken = found.taken
        record = verdict_record(
            self._keys, taken, found.loaded.model, found.class_id, found.confidence, found.finding, _nothing, preview,
            evidence, as_sent, changed=found.changed,
        )  # fmt: skip
        record.done = partial(self._written, taken, record)
        if trace.on():
            trace.stamp("answered", taken.identity)
        return record

    def _written(self, taken: TakenFrame, record: Outgoing) -> None:
        if record.smaller is not None:
            record.value, record.smaller = record.smaller, None
        self._repeats.remember(taken.identity, record)
        if trace.on():
            trace.stamp("delivered", taken.identity)
        # The cache must not keep the frame in memory.
        record.done = _nothing
        self._recorded(taken)

    async def _send_pictured(self, pictured: Sequence[Classification]) -> None:
        loop = asyncio.get_running_loop()
        encoded = await loop.run_in_executor(self._pictures, lambda: [_attempt(found) for found in pictured])
        records: list[Outgoing] = []
        for found, pictures in zip(pictured, encoded, strict=True):
            if isinstance(pictures, Exception):
                log.warning(
                    "pictures_omitted", frame=str(found.taken.identity), error=f"{type(pictures).__name__}: {pictures}"
                )
                self._pictures_failed()
                pictures = b"", b"", b""
            records.append(self._verdict(found, *pictures))
        await self._emitter.send(self._settings.verdicts_topic, records)

    def _send(self, topic: str, records: Sequence[Outgoing]) -> None:
        if records:
            self._track(self._emitter.send(topic, records), "send")

    def _track(self, sending: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(sending, name=name)
        self._sending.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.broken.done():
            self.broken.set_exception(error)

    async def close(self) -> None:
        """Cancel deliveries in progress."""
        for task in list(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        self._pictures.shutdown(wait=False, cancel_futures=True)


def _nothing() -> None:
    """Do nothing: the callback of a cached record."""


def _attempt(found: Classification) -> tuple[bytes, bytes, bytes] | Exception:
    """Return the pictures of a frame, or the error: a device or a decoder may fail, but the verdict stands."""
    try:
        return _pictures_of(found)
    except Exception as error:  # CUDA's out of memory and its other failures are RuntimeErrors
        return error


def _pictures_of(found: Classification) -> tuple[bytes, bytes, bytes]:
    """Return the preview of a frame, its evidence, and the picture as sent, each empty if there is none."""
    whole = found.taken.frame.whole
    preview = preview_jpeg(found.shown) if found.shown is not None else b""
    as_sent = b""
    if found.as_sent is not None:
        as_sent = preview_jpeg(found.as_sent) if whole else preview_jpeg(found.as_sent, HOLES_QUALITY)
    if found.finding is None or not found.finding.flagged:
        return preview, b"", as_sent
    if found.probe is not None and not whole:
        return preview, evidence_png(picture_of(found.probe.picture)), as_sent
    return preview, evidence_png(_whole_picture(found.taken)), as_sent


def _whole_picture(taken: TakenFrame) -> Picture:
    everything = np.ones((taken.shape.height, taken.shape.width), dtype=np.bool_)
    return unpack(taken.pixels(), everything, taken.shape.channels, taken.frame.profile)
