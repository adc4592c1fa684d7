"""The topic of published models, read from its beginning and then followed; no consumer group."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from processors.metrics import ProcessorMetrics
from processors.results.delivery import BACKOFF_S
from schemas.errors import WireError
from schemas.keys import KeyRing
from schemas.limits import MAX_BROKER_BYTES
from schemas.models import LIVE_KEY, unseal
from schemas.pointillist_pb2 import Models
from schemas.runtime.access import KafkaAddress, kafka_options
from schemas.runtime.kafka_clients import leave, start

_WAIT_MS: Final = 5000
_CALL_S: Final = 5.0
_MISSING_S: Final = 5.0
"""Between two looks at a Kafka that does not have the topic."""

log = structlog.get_logger()


class ModelFeed:
    """What is published, as Kafka says; a record that is not sealed with the fleet secret changes nothing."""

    def __init__(self, bootstrap: KafkaAddress, topic: str, keys: KeyRing, metrics: ProcessorMetrics) -> None:
        self._bootstrap = bootstrap
        self._partition = TopicPartition(topic, 0)
        self._keys = keys
        self._metrics = metrics
        self._tried = asyncio.Event()
        self._refused_offset = -1
        self.models = Models()
        self.known = asyncio.Event()
        """Set when the topic has been read to its end, or does not exist."""
        self.exists = False
        self.found = 0
        """How often the topic was found where there was none: what was said in the one before is gone."""
        self.changed = asyncio.Event()
        """Set at each change; whoever handles it clears it."""

    async def tried(self, deadline_s: float) -> None:
        """Return when `known` is set, the first attempt has failed, or the deadline is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self._tried.wait()

    async def run(self) -> None:
        """Follow the topic for ever; while Kafka does not answer, what was known stays."""
        attempt = 0
        while True:
            consumer = AIOKafkaConsumer(
                **kafka_options(self._bootstrap),
                enable_auto_commit=False,
                auto_offset_reset="none",
                max_partition_fetch_bytes=MAX_BROKER_BYTES,
                request_timeout_ms=15_000,
            )
            try:
                async with asyncio.timeout(2 * _CALL_S):
                    await start(consumer)
                await self._open(consumer)
                attempt = 0
                await self._follow(consumer)
            except (KafkaError, OSError, TimeoutError) as error:
                if attempt % 10 == 0:
                    log.warning("the published models are not read", error=f"{type(error).__name__}: {error}")
            finally:
                self._tried.set()
                await leave(consumer.stop, deadline_s=1.0)
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
            attempt += 1

    async def _open(self, consumer: AIOKafkaConsumer) -> None:
        """Read what is there, and take the last of it only: what was live before must not be loaded again."""
        while not await self._is_there(consumer):
            self.exists = False
            self._settle(None)
            await asyncio.sleep(_MISSING_S)
        consumer.assign([self._partition])
        async with asyncio.timeout(4 * _CALL_S):
            await consumer.seek_to_beginning(self._partition)
            end = (await consumer.end_offsets([self._partition]))[self._partition]
            last: Models | None = None
            while await consumer.position(self._partition) < end:
                last = self._read(await consumer.getmany(self._partition, timeout_ms=500)) or last
        if not self.exists:
            self.exists = True
            self.found += 1
            self.changed.set()
        self._settle(last)

    def _settle(self, models: Models | None) -> None:
        if models is not None and models != self.models:
            self.models = models
            self.changed.set()
        if not self.known.is_set():
            self.changed.set()
        self.known.set()
        self._tried.set()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        try:
            while True:
                records = await consumer.getmany(self._partition, timeout_ms=_WAIT_MS)
                models = self._read(records)
                if models is not None:
                    self._settle(models)
                # aiokafka does not say that a topic was deleted.
                if not records and not await self._is_there(consumer):
                    break
        except OffsetOutOfRangeError:
            pass
        self.exists = False
        log.warning("the topic of the models was lost", topic=self._partition.topic)

    async def _is_there(self, consumer: AIOKafkaConsumer) -> bool:
        async with asyncio.timeout(_CALL_S):
            return self._partition.topic in await consumer.topics()

    def _read(self, records: dict[TopicPartition, list[ConsumerRecord]]) -> Models | None:
        last = None
        for record in records.get(self._partition, []):
            if record.key != LIVE_KEY:
                continue
            try:
                last = unseal(record.value or b"", self._keys)
            except WireError as error:
                # The topic is read again whenever the connection was lost.
                if record.offset > self._refused_offset:
                    self._refused_offset = record.offset
                    self._metrics.model_swaps["refused"].inc()
                    log.error(
                        "a list of models is refused", offset=record.offset, reason=error.reason, error=str(error)
                    )
        return last
