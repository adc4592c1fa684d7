"""A reader of the topic of published models, from its beginning on; without a consumer group."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import structlog
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from processors.metrics import ProcessorMetrics
from schemas.errors import typed_text
from schemas.keys.signers import TrustedSigners
from schemas.messages.models import LIVE_KEY
from schemas.messages.models_records import ModelsRecords
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
        self._metrics = metrics
        self._refused_offset = -1
        self._records = ModelsRecords(partial(TrustedSigners.read, trust))
        self.models = Models()
        """The list in force, with the gate's assessment applied, as of the last fetch."""
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
                    log.warning("kafka_unavailable", error=typed_text(error))
            finally:
                self.tried.set()
                await reader.close(1.0)
            await backoff.wait()

    async def _open(self, reader: Reader) -> None:
        """Read the existing records, and use only the last list: an earlier live model must not be loaded again."""
        while not await self._is_there(reader):
            self.exists = False
            self._settle()
            await asyncio.sleep(_MISSING_S)
        if not self.exists:
            self._records.restart()
            self._refused_offset = -1
        reader.assign([self._partition])
        async with asyncio.timeout(4 * _CALL_S):
            await reader.seek_to_beginning(self._partition)
            async for records in reader.fetch_until(await reader.ends([self._partition])):
                self._apply(records)
        if not self.exists:
            self.exists = True
            self.found += 1
            self.changed.set()
        self._settle()

    def _settle(self) -> None:
        """Publish the list in force and the fault of the newest one, by the records read so far."""
        records = self._records
        refused = Refusal(records.refused_digest, records.refused) if records.refused else None
        state = (records.models, refused)
        if state != (self.models, self.refused) or not self.known.is_set():
            self.models, self.refused = state
            self.changed.set()
        self.known.set()
        self.tried.set()

    async def _follow(self, reader: Reader) -> None:
        try:
            while True:
                records = await reader.fetch(self._partition, wait_s=_WAIT_S)
                self._apply(records)
                if not records:
                    self._records.retry()
                self._settle()
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

    def _apply(self, records: Records) -> None:
        for record in records.get(self._partition, []):
            self._records.apply_record(record.key or b"", record.value)
            # The topic is read again after each lost connection.
            if record.key == LIVE_KEY and self._records.refused and record.offset > self._refused_offset:
                self._refused_offset = record.offset
                self._metrics.model_swaps["refused"].inc()
                log.error("model_list_rejected", offset=record.offset, error=self._records.refused)
