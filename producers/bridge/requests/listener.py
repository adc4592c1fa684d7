"""What the server asks of cameras, heard on Kafka's events: the bridges make signed MQTT messages of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from schemas.topics import KafkaTopic
from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.clients import leave, start

log = structlog.get_logger()

START_S: Final = 10.0
STOP_S: Final = 2.0
COMPLAIN_AFTER: Final = 3

Take = Callable[[Sequence[ConsumerRecord], float], None]
"""Takes records and the monotonic time; passes over those that are none of its own."""


class Requests:
    """Reads the events that come from now on and hands them to all `takers`."""

    def __init__(self, bootstrap: KafkaAddress, client: str, takers: Sequence[Take]) -> None:
        self._bootstrap = bootstrap
        self._client = client
        self._takers = takers

    async def run(self) -> None:
        """Pass requests on until cancelled; a Kafka that is away is waited for."""
        backoff = Backoff()
        while True:
            consumer = AIOKafkaConsumer(
                KafkaTopic.EVENTS.value,
                **kafka_options(self._bootstrap),
                client_id=f"{self._client}-requests",
                auto_offset_reset="latest",
                enable_auto_commit=False,
            )
            try:
                async with asyncio.timeout(START_S):
                    await start(consumer)
                while True:
                    records = await consumer.getmany(timeout_ms=60_000)
                    backoff.reset()
                    for part in records.values():
                        for take in self._takers:
                            take(part, time.monotonic())
            except Exception as error:
                # Whatever the client library reports: the frames' way must not end with the requests'.
                if backoff.failures + 1 == COMPLAIN_AFTER:
                    log.warning("requests to cameras are not heard", cause=repr(error)[:300])
            finally:
                await leave(consumer.stop, deadline_s=STOP_S)
            await backoff.wait()
