"""The conservation law as a metric: the live audit, made again and again whether or not somebody looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from consumers.conservation.kafka_marks import ask_marks
from consumers.conservation.live import LiveAudit
from consumers.conservation.rounds import Marks
from consumers.database.engine import database_url
from schemas import metrics
from schemas.keys import KeyRing
from schemas.topics import KafkaTopic
from schemas.transport.access import KafkaAddress

FATES: Final = ("recorded", "dead_lettered", "shed", "pending", "lost")
_RESULTS: Final = (KafkaTopic.VERDICTS.value, KafkaTopic.DEAD_LETTERS.value)


class Conservation:
    """One live audit in a thread of its own."""

    def __init__(self, registry: CollectorRegistry, kafka: KafkaAddress, database: str, keys: KeyRing) -> None:
        self._kafka = kafka
        self._database = database
        self._keys = keys.every_generation()
        self._live = LiveAudit(database, self._keys)
        self._file: int | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._frames = metrics.AUDITED.on(registry)
        self._at_s = time.monotonic()
        # Asked at each scrape: an audit that hangs must be seen to.
        metrics.AUDIT_AGE.on(registry).set_function(lambda: time.monotonic() - self._at_s)

    async def look(self) -> None:
        """Audit. Raises what Kafka's client or the database raises when one of them does not answer."""
        marks = await ask_marks(self._kafka, KafkaTopic.FRAMES.value, _RESULTS)
        self._show(await asyncio.get_running_loop().run_in_executor(self._thread, self._audit, marks))
        self._at_s = time.monotonic()

    def _audit(self, marks: Marks) -> Mapping[str, object]:
        """In the audit's thread. A damaged file that was replaced by another one is begun anew with."""
        url = database_url(self._database)
        if url.get_backend_name() == "sqlite" and url.database:
            file = Path(url.database).stat().st_ino
            if self._file not in (None, file):
                self._live.close()
                self._live = LiveAudit(self._database, self._keys)
            self._file = file
        return self._live.refresh(marks)

    def _show(self, document: Mapping[str, object]) -> None:
        for fate in FATES:
            found = document[f"frames_{fate}"]
            assert isinstance(found, int)
            self._frames.labels(fate).set(found)

    def end(self) -> None:
        """Let go of the database."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._live.close()
