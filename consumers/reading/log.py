"""Reading Kafka from offsets that the database keeps: every partition, no consumer group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException

from consumers.reading.batch import Partition, Record
from consumers.settings import RecorderSettings
from schemas.limits import MAX_BROKER_BYTES
from schemas.runtime import trace
from schemas.runtime.access import kafka_options
from schemas.runtime.kafka_clients import REQUEST_S, STOP_S, leave, start
from schemas.runtime.kafka_damage import DamagePasser

log = structlog.get_logger()


class Rewound(Exception):  # noqa: N818  # what Kafka says, not a failure
    """A partition does not go on where it was left: it was made anew, or it has more partitions now."""


class Log:
    """The records of some topics from given offsets on, each once and in order per partition."""

    def __init__(
        self,
        settings: RecorderSettings,
        topics: Collection[str],
        partition_bytes: int,
        on_damaged: Callable[[int], None] = lambda _: None,
    ) -> None:
        """At most about `partition_bytes` of each partition are fetched at once, a larger record alone.

        `on_damaged` is told how many records in damaged batches were passed over.
        """
        self._settings = settings
        self._on_damaged = on_damaged
        self._damage = DamagePasser(CorruptRecordException)
        self.topics = frozenset(topics)
        self._partition_bytes = partition_bytes
        self._consumer: AIOKafkaConsumer | None = None
        self._next: dict[TopicPartition, int] = {}

    async def open(self, stored: Mapping[Partition, int]) -> dict[Partition, int]:
        """Connect and go to the `stored` offsets; the ones among them that lie beyond the end, with the beginning.

        Raises what aiokafka raises when Kafka does not answer or has not all topics yet.
        """
        consumer = AIOKafkaConsumer(
            *sorted(self.topics),
            **kafka_options(self._settings.kafka),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_bytes=2 * MAX_BROKER_BYTES,
            max_partition_fetch_bytes=self._partition_bytes,
            request_timeout_ms=REQUEST_S * 1000,
            metadata_max_age_ms=30_000,
        )
        try:
            await start(consumer)
            partitions = sorted(consumer.assignment())
            begins = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            rewound = {}
            self._next = {}
            for partition in partitions:
                position = stored.get((partition.topic, partition.partition))
                if position is not None and position > ends[partition]:
                    log.warning("log_made_anew", topic=partition.topic, stored=position, end=ends[partition])
                    rewound[partition.topic, partition.partition] = position = begins[partition]
                self._next[partition] = begins[partition] if position is None else max(position, begins[partition])
                consumer.seek(partition, self._next[partition])
        except BaseException:
            await leave(consumer.stop, deadline_s=STOP_S)
            raise
        self._consumer = consumer
        return rewound

    async def gather(self, linger_s: float, limit: int) -> list[Record]:
        """The records that come within `linger_s` of the first one, at most about `limit`.

        Empty when none came for half a second. Raises `Rewound` when reading must begin again with `open`.
        """
        if self._consumer is None:
            raise RuntimeError("expected an open log")
        records: list[Record] = []
        deadline: float | None = None
        while len(records) < limit:
            wait_s = 0.5 if deadline is None else deadline - time.monotonic()
            if wait_s <= 0:
                break
            found = await self._getmany(self._consumer, wait_s, limit)
            if self._consumer.assignment() != self._next.keys():
                raise Rewound("the topics have other partitions than before")
            if trace.on():
                trace.stamp("gathered", *(named(record) for some in found.values() for record in some))
            for partition, some in found.items():
                if some[0].offset < self._next[partition]:
                    raise Rewound(f"{partition}: expected offset {self._next[partition]}, got {some[0].offset}")
                self._next[partition] = some[-1].offset + 1
                records += some
            if not found and deadline is None:
                break
            if deadline is None:
                deadline = time.monotonic() + linger_s
        return records

    async def _getmany(
        self, consumer: AIOKafkaConsumer, wait_s: float, limit: int
    ) -> dict[TopicPartition, list[Record]]:
        if self._damage.careful:
            found, passed = await self._damage.getmany(consumer, list(self._next), limit)
            self._passed_over(passed)
            return found
        try:
            got: dict[TopicPartition, list[Record]] = await consumer.getmany(
                timeout_ms=max(1, round(wait_s * 1000)), max_records=limit
            )
        except CorruptRecordException as error:
            self._damage.met()
            raise Rewound(f"{error}: reading carefully") from None
        self._passed_over(await self._damage.pass_stalls(consumer, list(self._next)))
        return got

    def _passed_over(self, records: int) -> None:
        if records:
            log.error("damaged_records_passed_over", records=records)
            self._on_damaged(records)

    async def lag(self) -> int:
        """Records that Kafka holds beyond those gathered; asks Kafka, and raises when it does not answer."""
        if self._consumer is None:
            return 0
        positions = dict(self._next)
        ends = await asyncio.wait_for(self._consumer.end_offsets(list(positions)), REQUEST_S)
        return sum(max(0, ends[partition] - position) for partition, position in positions.items())

    @property
    def is_open(self) -> bool:
        """Whether `open` has succeeded and `close` has not been called since."""
        return self._consumer is not None

    async def close(self) -> None:
        """Drop the connection."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await leave(consumer.stop, deadline_s=STOP_S)


def named(record: Record) -> str:
    """What a record's event is called: of a verdict, the identity of its frame."""
    return next((value.decode(errors="replace") for name, value in record.headers if name == "ce_id"), "")
