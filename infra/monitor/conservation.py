"""The live audit of the conservation law, made at intervals: its metrics, and its result in the database."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from consumers.conservation.kafka_offsets import read_log_offsets
from consumers.conservation.live import LiveAudit
from consumers.conservation.result import save_result
from consumers.conservation.rounds import LogOffsets
from consumers.database.engine import database_url, open_engine
from schemas import metrics
from schemas.errors import error_text
from schemas.keys.keys import KeyRing
from schemas.runtime.worker_threads import WorkerThreads
from schemas.topics import KafkaTopic
from schemas.transport.access import KafkaAddress

FATES: Final = ("recorded", "dead_lettered", "shed", "pending", "lost", "unread")
_RESULTS: Final = (KafkaTopic.VERDICTS.value, KafkaTopic.DEAD_LETTERS.value)

log = structlog.get_logger()


class ConservationMetrics:
    """The metrics of the live audit, which runs in a thread of its own; no other role audits."""

    def __init__(self, registry: CollectorRegistry, kafka: KafkaAddress, database: str, keys: KeyRing) -> None:
        self._kafka = kafka
        self._database = database
        self._keys = keys.every_generation()
        self._live = LiveAudit(database, self._keys)
        self._file: int | None = None
        self._run_in_thread = WorkerThreads(1, "audit")
        self._frames = metrics.AUDITED.on(registry)
        self._at_s = time.monotonic()
        # A function of the time of the scrape: an audit that hangs is then visible.
        metrics.AUDIT_AGE.on(registry).set_function(lambda: time.monotonic() - self._at_s)

    async def audit(self) -> None:
        """Audit once. Raises the errors of Kafka's client and of the database if one of them does not respond."""
        logs = await read_log_offsets(self._kafka, KafkaTopic.FRAMES.value, _RESULTS)
        document = await self._run_in_thread(self._audit, logs)
        self._set_frames(document)
        self._at_s = time.monotonic()
        await self._run_in_thread(self._save, document)

    def _audit(self, logs: LogOffsets) -> Mapping[str, object]:
        """Audit, in the thread for it. If another file has replaced a damaged one, begin again."""
        url = database_url(self._database)
        if url.get_backend_name() == "sqlite" and url.database:
            file = Path(url.database).stat().st_ino
            if self._file not in (None, file):
                self._live.close()
                self._live = LiveAudit(self._database, self._keys)
            self._file = file
        return self._live.refresh(logs)

    def _save(self, document: Mapping[str, object]) -> None:
        engine = open_engine(self._database, writes=True)
        try:
            save_result(engine, document)
        except Exception as error:  # drivers raise many errors for a locked, read-only or unavailable database
            log.warning("audit_not_saved", error=error_text(error))
        finally:
            engine.dispose()

    def _set_frames(self, document: Mapping[str, object]) -> None:
        for fate in FATES:
            count = document[f"frames_{fate}"]
            assert isinstance(count, int)
            # Not 0 at a start: the losses that are found again would look like new ones.
            if fate != "lost" or document["lost_known_to_ms"]:
                self._frames.labels(fate).set(count)

    def close(self) -> None:
        """Close the database."""
        self._run_in_thread.close()
        self._live.close()
