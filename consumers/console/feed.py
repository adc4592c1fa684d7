"""Verdicts from Kafka as they come, for people: from now on, and never so far behind that what is shown is old.

Nothing is recorded here, so nothing is committed: a console that cannot keep up goes on at the newest verdict.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException

from consumers.board.board import monotonic_ms
from consumers.console.fleet import Fleet
from consumers.database.thread import FIRST_DELAY_S, LONGEST_DELAY_S
from consumers.reading.batch import FrameKey, Record, frame_row, read
from consumers.settings import RecordsSettings
from schemas.keys import KeyRing
from schemas.limits import MAX_BROKER_BYTES
from schemas.runtime.access import kafka_options
from schemas.runtime.health import Health
from schemas.runtime.kafka_clients import REQUEST_S, STOP_S, leave, start

MOST_BEHIND: Final = 5_000
"""Verdicts of one partition: whoever is farther behind passes them over."""
_AT_ONCE: Final = 500
"""Verdicts read before others have their turn: some 20 ms."""
_WAIT_MS: Final = 500

log = structlog.get_logger()


class Feed:
    """Reads the verdicts and shows them to a fleet."""

    def __init__(self, settings: RecordsSettings, keys: KeyRing, fleet: Fleet, health: Health) -> None:
        self._settings = settings
        self._keys = keys
        self._fleet = fleet
        self._health = health
        self.passed_over = 0
        """Verdicts that were not shown since there were too many."""
        health.set("kafka", False, "not connected yet")

    async def run(self) -> None:
        """Show what comes until cancelled; Kafka may be away at any time."""
        delay_s = FIRST_DELAY_S
        while True:
            consumer = AIOKafkaConsumer(
                self._settings.verdicts_topic,
                **kafka_options(self._settings.kafka),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="latest",
                fetch_max_bytes=2 * MAX_BROKER_BYTES,
                max_partition_fetch_bytes=MAX_BROKER_BYTES,
                request_timeout_ms=REQUEST_S * 1000,
                metadata_max_age_ms=30_000,
            )
            try:
                await start(consumer)
                self._health.set("kafka", True)
                delay_s = FIRST_DELAY_S
                await self._read(consumer)
            except Exception as error:  # whatever a broker may raise while it is away
                self._health.set("kafka", False, str(error) or type(error).__name__)
                log.warning("kafka_unavailable", error=str(error) or type(error).__name__)
            finally:
                with suppress(Exception):
                    await leave(consumer.stop, deadline_s=STOP_S)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                found = await consumer.getmany(timeout_ms=_WAIT_MS, max_records=_AT_ONCE)
            except CorruptRecordException:
                await consumer.seek_to_end()
                continue
            for place, records in found.items():
                self.show(records)
                await self._keep_up(consumer, place)
            # Pages are served by the same loop.
            await asyncio.sleep(0)

    async def _keep_up(self, consumer: AIOKafkaConsumer, place: TopicPartition) -> None:
        end = consumer.highwater(place)
        at = await consumer.position(place)
        if end is not None and end - at > MOST_BEHIND:
            self.passed_over += end - at
            consumer.seek(place, end)
            log.info("verdicts_passed_over", partition=place.partition, count=end - at)

    def show(self, records: Sequence[Record]) -> None:
        """Show what the records of one partition say; those that nobody of ours has signed are passed over."""
        recorded_ms = time.time_ns() // 10**6
        batch = read(records, self._settings, self._keys, recorded_ms)
        rows = [frame_row(key, verdict, recorded_ms) for key, verdict in batch.verdicts.items()]
        rebuilt: dict[FrameKey, bytes] = {key: v.preview for key, v in batch.verdicts.items() if v.preview}
        sent: dict[FrameKey, bytes] = {key: v.as_sent for key, v in batch.verdicts.items() if v.as_sent}
        self._fleet.take(rows, rebuilt, sent, monotonic_ms())
