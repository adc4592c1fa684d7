"""Answers who asks for the audit: at once with what was found last, and finds out anew beside recording."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import structlog

from consumers.conservation.kafka_marks import ask_marks
from consumers.conservation.live import LiveAudit
from consumers.settings import RecordsSettings
from schemas.keys import KeyRing

FRESH_S: Final = 2.0
"""What was found is given again for so long."""
_WAIT_S: Final = 2.0
"""So long an answer waits for what is being found."""

log = structlog.get_logger()


class AuditDesk:
    """A live audit that goes on while somebody asks, in a thread of its own."""

    def __init__(self, settings: RecordsSettings, keys: KeyRing) -> None:
        self._settings = settings
        self._live = LiveAudit(settings.database, keys.every_generation())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._finding: asyncio.Task[None] | None = None
        self._found_s = 0.0

    async def answer(self) -> bytes:
        """The document as JSON; of a first question that takes longer than a moment, an error that says so."""
        if self._finding is None and time.monotonic() - self._found_s > FRESH_S:
            self._finding = asyncio.create_task(self._find(), name="audit")
        if self._finding is not None:
            await asyncio.wait([self._finding], timeout=_WAIT_S)
        return json.dumps(self._live.document or {"error": "the first reading is not done yet"}).encode()

    async def _find(self) -> None:
        settings = self._settings
        results = (settings.verdicts_topic, settings.dead_letters_topic)
        try:
            marks = await ask_marks(settings.kafka, settings.frames_topic, results)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._live.refresh, marks)
            self._found_s = time.monotonic()
        except Exception as error:  # Kafka or the database is away: what was found last stands, and says of when
            log.warning("audit_not_refreshed", error=str(error)[:200] or type(error).__name__)
        finally:
            self._finding = None

    async def close(self) -> None:
        """End what is being found."""
        if self._finding is not None:
            self._finding.cancel()
            with suppress(asyncio.CancelledError):
                await self._finding
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._live.close()
