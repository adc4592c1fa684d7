"""The topic of published models, read from its beginning and then followed; no consumer group."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from processors.metrics import ProcessorMetrics
from schemas.errors import ConfigError, WireError
from schemas.limits import MAX_BROKER_BYTES
from schemas.models import LIVE_KEY, claimed, unseal
from schemas.pointillist_pb2 import Models
from schemas.signers import TrustedSigners
from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.clients import leave, start

_WAIT_MS: Final = 5000
_CALL_S: Final = 5.0
_MISSING_S: Final = 5.0
"""Between two looks at a Kafka that does not have the topic."""

log = structlog.get_logger()


class Refusal(NamedTuple):
    """A list of models that is not believed."""

    digest: str
    """Of the model that it calls live."""
    error: str


class ModelFeed:
    """What is published, as Kafka says; a record that no trusted signer has signed changes nothing."""

    def __init__(self, bootstrap: KafkaAddress, topic: str, trust: Path | None, metrics: ProcessorMetrics) -> None:
        """`trust` is the file of the trusted signers, read anew for each list; None trusts nobody."""
        self._bootstrap = bootstrap
        self._partition = TopicPartition(topic, 0)
        self._trust = trust
        self._metrics = metrics
        self._newest_ms = 0
        self._waiting: bytes | None = None
        """The newest list, when it was refused: whoever signed it may be trusted later."""
        self._tried = asyncio.Event()
        self._refused_offset = -1
        self.models = Models()
        self.refused: Refusal | None = None
        """What is wrong with the newest list; then the one before it counts."""
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
        backoff = Backoff()
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
                backoff.reset()
                await self._follow(consumer)
            except (KafkaError, OSError, TimeoutError) as error:
                if backoff.failures % 10 == 0:
                    log.warning("the published models are not read", error=f"{type(error).__name__}: {error}")
            finally:
                self._tried.set()
                await leave(consumer.stop, deadline_s=1.0)
            await backoff.wait()

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
            self._newest_ms = 0
            self.changed.set()
        self._settle(last)

    def _settle(self, models: Models | None) -> None:
        # An old list that somebody sends again takes nothing back.
        if models is not None and models != self.models and models.changed_ms >= self._newest_ms:
            self.models = models
            self._newest_ms = models.changed_ms
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
                elif not records and self._waiting is not None:
                    self._settle(self._unseal(self._waiting, None))
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
            models = self._unseal(record.value or b"", record.offset)
            if models is not None and (last is None or models.changed_ms >= last.changed_ms):
                last = models
        return last

    def _unseal(self, value: bytes, offset: int | None) -> Models | None:
        """The list in a record, None when it is refused; without an offset it has been refused before."""
        refused: Refusal | None = None
        models: Models | None = None
        try:
            models = unseal(value, TrustedSigners.read(self._trust))
        except (WireError, ConfigError) as error:
            refused = Refusal(claimed(value), str(error))
            # The topic is read again whenever the connection was lost.
            if offset is not None and offset > self._refused_offset:
                self._refused_offset = offset
                self._metrics.model_swaps["refused"].inc()
                log.error("a list of models is refused", offset=offset, error=str(error))
        self._waiting = value if refused is not None else None
        if refused != self.refused:
            self.refused = refused
            self.changed.set()
        return models
