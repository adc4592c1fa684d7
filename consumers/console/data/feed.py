"""Live verdicts from Kafka for the pages: from now on, without replay of a backlog.

The console records nothing, so it commits no offsets. If it cannot keep up, it skips to the newest verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka.structs import TopicPartition

from consumers.console.data.fleet import Fleet
from consumers.records.batch import FrameKey, Record, frame_row, read
from consumers.settings import RecordsSettings
from schemas.clock import monotonic_ms, unix_ms
from schemas.errors import error_text
from schemas.keys.keys import KeyRing
from schemas.runtime.health import Health
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.reader import Reader

MOST_BEHIND: Final = 5_000
"""Maximum lag in verdicts of one partition. Beyond it the feed skips to the newest."""
_AT_ONCE: Final = 500
"""Verdicts handled before the event loop runs other tasks: about 20 ms."""
_WAIT_S: Final = 0.5

log = structlog.get_logger()


class Feed:
    """Reads verdicts and applies them to a fleet."""

    def __init__(self, settings: RecordsSettings, keys: KeyRing, fleet: Fleet, health: Health) -> None:
        self._settings = settings
        self._keys = keys
        self._fleet = fleet
        self._health = health
        health.set("kafka", False, "not connected yet")

    async def run(self) -> None:
        """Read and apply verdicts until cancelled. Kafka may be unreachable at any time."""
        backoff = Backoff()
        while True:
            try:
                async with Reader(self._settings.kafka, self._settings.verdicts_topic, begin="latest") as reader:
                    self._health.set("kafka", True)
                    backoff.reset()
                    await self._read(reader)
            except Exception as error:  # an unreachable broker may cause any error
                self._health.set("kafka", False, error_text(error))
                log.warning("kafka_unavailable", error=error_text(error))
            await backoff.wait()

    async def _read(self, reader: Reader) -> None:
        while True:
            for place, records in (await reader.fetch(wait_s=_WAIT_S, most=_AT_ONCE)).items():
                self.show(records)
                await self._keep_up(reader, place)
            # The same event loop serves the pages.
            await asyncio.sleep(0)

    async def _keep_up(self, reader: Reader, place: TopicPartition) -> None:
        end = reader.high_watermark(place)
        at = await reader.position(place)
        if end is not None and end - at > MOST_BEHIND:
            reader.seek({place: end})
            log.info("verdicts_skipped", partition=place.partition, count=end - at)

    def show(self, records: Sequence[Record]) -> None:
        """Apply the records of one partition. Skip records without a trusted signature."""
        recorded_ms = unix_ms()
        batch = read(records, self._settings, self._keys, recorded_ms)
        rows = [frame_row(key, verdict, recorded_ms) for key, verdict in batch.verdicts.items()]
        rebuilt: dict[FrameKey, bytes] = {key: v.preview for key, v in batch.verdicts.items() if v.preview}
        sent: dict[FrameKey, bytes] = {key: v.as_sent for key, v in batch.verdicts.items() if v.as_sent}
        self._fleet.add_frames(rows, rebuilt, sent, monotonic_ms())
