"""A reader of the topic of published models, from its beginning on; without a consumer group."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, NamedTuple

import structlog
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from processors.metrics import ProcessorMetrics
from schemas.errors import ConfigError, WireError
from schemas.keys.signers import TrustedSigners
from schemas.messages.models import LIVE_KEY, claimed, unseal
from schemas.messages.rollout import ASSESSMENT_KEY, RolloutRecords
from schemas.pointillist_pb2 import Models
from schemas.transport.access import KafkaAddress
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.reader import Reader, Records

_WAIT_S: Final = 5.0
_CALL_S: Final = 5.0
_MISSING_S: Final = 5.0
"""Seconds between two checks for a topic that Kafka does not have."""

log = structlog.get_logger()


class Refusal(NamedTuple):
    """A rejected list of models."""

    digest: str
    """Digest of the model that the list calls live."""
    error: str


class ModelFeed:
    """The published models in Kafka; a record without a trusted signature changes nothing."""

    def __init__(self, bootstrap: KafkaAddress, topic: str, trust: Path | None, metrics: ProcessorMetrics) -> None:
        """`trust` is the file of the trusted signers, read again for each list; None trusts nobody."""
        self._bootstrap = bootstrap
        self._partition = TopicPartition(topic, 0)
        self._trust = trust
        self._metrics = metrics
        self._newest_ms = 0
        self._waiting: bytes | None = None
        """The newest list if it was rejected: its signer may become trusted later."""
        self._refused_offset = -1
        self._records = RolloutRecords()
        self.refused: Refusal | None = None
        """The fault of the newest list; the list before it stays valid."""
        self.known = asyncio.Event()
        """Set when the topic has been read to its end, or does not exist."""
        self.tried = asyncio.Event()
        """Set with `known`, or when the first attempt has failed."""
        self.exists = False
        self.found = 0
        """Number of times the topic was created again: the records of the previous one are gone."""
        self.changed = asyncio.Event()
        """Set at each change; the handler clears it."""

    @property
    def models(self) -> Models:
        """The list in force: the newest one, with the gate's assessment applied."""
        return self._records.models

    async def run(self) -> None:
        """Follow the topic until cancelled; while Kafka does not answer, the last known list stays valid."""
        backoff = Backoff()
        reader = Reader(self._bootstrap, begin="none")
        while True:
            try:
                await reader.open()
                await self._open(reader)
                backoff.reset()
                await self._follow(reader)
            except (KafkaError, OSError, TimeoutError) as error:
                if backoff.failures % 10 == 0:
                    log.warning("kafka_unavailable", error=f"{type(error).__name__}: {error}")
            finally:
                self.tried.set()
                await reader.close(1.0)
            await backoff.wait()

    async def _open(self, reader: Reader) -> None:
        """Read the existing records, and use only the last one: an earlier live model must not be loaded again."""
        while not await self._is_there(reader):
            self.exists = False
            self._settle(None)
            await asyncio.sleep(_MISSING_S)
        reader.assign([self._partition])
        async with asyncio.timeout(4 * _CALL_S):
            await reader.seek_to_beginning(self._partition)
            last: Models | None = None
            async for records in reader.fetch_until(await reader.ends([self._partition])):
                last = self._read(records, last)
        if not self.exists:
            self.exists = True
            self.found += 1
            self._newest_ms = 0
            self.changed.set()
        self._settle(last)

    def _settle(self, models: Models | None) -> None:
        # An old list that is sent again takes nothing back.
        if models is not None and models != self._records.listed and models.changed_ms >= self._newest_ms:
            self._records.listed = models
            self._newest_ms = models.changed_ms
            self.changed.set()
        if not self.known.is_set():
            self.changed.set()
        self.known.set()
        self.tried.set()

    async def _follow(self, reader: Reader) -> None:
        try:
            while True:
                records = await reader.fetch(self._partition, wait_s=_WAIT_S)
                models = self._read(records)
                if models is not None:
                    self._settle(models)
                elif not records and self._waiting is not None:
                    self._settle(self._unseal(self._waiting, None))
                # aiokafka does not report a deleted topic.
                if not records and not await self._is_there(reader):
                    break
        except OffsetOutOfRangeError:
            pass
        self.exists = False
        log.warning("topic_lost", topic=self._partition.topic)

    async def _is_there(self, reader: Reader) -> bool:
        async with asyncio.timeout(_CALL_S):
            return self._partition.topic in await reader.topics()

    def _read(self, records: Records, last: Models | None = None) -> Models | None:
        """Return the newest list of `last` and those among the records."""
        for record in records.get(self._partition, []):
            if record.key == ASSESSMENT_KEY:
                self._records.apply_assessment(record.value)
                self.changed.set()
            if record.key != LIVE_KEY:
                continue
            models = self._unseal(record.value or b"", record.offset)
            if models is not None and (last is None or models.changed_ms >= last.changed_ms):
                last = models
        return last

    def _unseal(self, value: bytes, offset: int | None) -> Models | None:
        """Return the list in a record; None if it is rejected. `offset` is None for a list that was rejected before."""
        refused: Refusal | None = None
        models: Models | None = None
        try:
            models = unseal(value, TrustedSigners.read(self._trust))
        except (WireError, ConfigError) as error:
            refused = Refusal(claimed(value), str(error))
            # The topic is read again after each lost connection.
            if offset is not None and offset > self._refused_offset:
                self._refused_offset = offset
                self._metrics.model_swaps["refused"].inc()
                log.error("model_list_rejected", offset=offset, error=str(error))
        self._waiting = value if refused is not None else None
        if refused != self.refused:
            self.refused = refused
            self.changed.set()
        return models
