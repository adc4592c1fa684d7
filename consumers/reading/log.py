"""Reading Kafka from offsets that the database keeps: every partition, or this recorder's share of a group's.

The group only says whose a partition is; where to go on in it the database says, in one transaction with the effect of
what came before. What is committed to the group is for those who look at its lag.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, suppress

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException, IllegalStateError, KafkaError

from consumers.reading.batch import Partition, Record, Span
from consumers.reading.membership import Membership
from consumers.settings import RecorderSettings
from schemas.limits import MAX_BROKER_BYTES
from schemas.runtime import trace
from schemas.transport.access import kafka_options
from schemas.transport.kafka.clients import REQUEST_S, STOP_S, leave, start
from schemas.transport.kafka.damage import DamagePasser
from schemas.transport.kafka.internals import missing_replicas

log = structlog.get_logger()


TakeUp = Callable[[Collection[str], Mapping[Partition, Span]], Awaitable[Mapping[Partition, int]]]
"""Takes the partitions up that a reader of these topics has, given where each log begins and ends: where to go on."""


class Rewound(Exception):  # noqa: N818  # what Kafka says, not a failure
    """A partition does not go on where it was left: it was made anew, or it has more partitions now."""


class Log:
    """The records of some topics from given offsets on, each once and in order per partition."""

    def __init__(
        self,
        settings: RecorderSettings,
        topics: Collection[str],
        partition_bytes: int,
        membership: Membership | None = None,
        on_damaged: Callable[[int], None] = lambda _: None,
    ) -> None:
        """At most about `partition_bytes` of each partition are fetched at once, a larger record alone.

        Without a `membership` of a group all partitions are read. `on_damaged` is told how many records in damaged
        batches were passed over.
        """
        self._settings = settings
        self._on_damaged = on_damaged
        self._damage = DamagePasser()
        self.topics = frozenset(topics)
        self._partition_bytes = partition_bytes
        self._consumer: AIOKafkaConsumer | None = None
        self._next: dict[TopicPartition, int] = {}
        self._membership = membership or Membership()

    async def open(self) -> None:
        """Connect, and join the group; `take_up` comes next.

        Raises what aiokafka raises when Kafka does not answer or has not all topics yet.
        """
        consumer = AIOKafkaConsumer(
            **kafka_options(self._settings.kafka),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_bytes=2 * MAX_BROKER_BYTES,
            max_partition_fetch_bytes=self._partition_bytes,
            **{"request_timeout_ms": REQUEST_S * 1000, "metadata_max_age_ms": 30_000, **self._membership.options()},
        )
        consumer.subscribe(sorted(self.topics), listener=self._membership.listener())
        try:
            await start(consumer)
        except BaseException:
            await leave(consumer.stop, deadline_s=STOP_S)
            raise
        self._consumer = consumer

    async def take_up(self, take_up: TakeUp) -> None:
        """Go on where the database says, in the partitions that are ours now; raises `Rewound` when that breaks off."""
        consumer = self._opened()
        while True:
            await self._membership.settled()
            self._next = {}
            partitions = sorted(consumer.assignment())
            begins = await consumer.beginning_offsets(partitions) if partitions else {}
            ends = await consumer.end_offsets(partitions) if partitions else {}
            spans = {(tp.topic, tp.partition): (begins[tp], ends[tp]) for tp in partitions}
            stored = await take_up(self.topics, spans)
            if not self._membership.is_settled:
                continue
            self._next = {tp: max(stored[tp.topic, tp.partition], begins[tp]) for tp in partitions}
            with suppress(IllegalStateError):  # it is not ours any more, as the group is about to say
                for tp, at in self._next.items():
                    consumer.seek(tp, at)
            return

    def writing(self) -> AbstractAsyncContextManager[None]:
        """While what was gathered is written, no partition is given up; `Reassigned` when one was before."""
        return self._membership.writing()

    async def tell(self, offsets: Mapping[Partition, int]) -> None:
        """Let the group know up to where records are written, for those who look at its lag."""
        consumer = self._consumer
        if consumer is None or not self._membership.group or not self._membership.is_settled:
            return
        mine = {tp: offsets[tp.topic, tp.partition] for tp in self._next if (tp.topic, tp.partition) in offsets}
        if not mine:
            return
        with suppress(KafkaError, TimeoutError, IllegalStateError):
            # Without a limit, aiokafka looks for the group's coordinator for ever.
            async with asyncio.timeout(REQUEST_S):
                await consumer.commit(mine)

    async def gather(self, linger_s: float, limit: int) -> list[Record]:
        """The records that come within `linger_s` of the first one, at most about `limit`.

        Empty when none came for half a second. Raises `Rewound` when reading must begin again with `open`, and
        `Reassigned` when it goes on with `take_up`.
        """
        consumer = self._opened()
        records: list[Record] = []
        deadline: float | None = None
        while len(records) < limit:
            wait_s = 0.5 if deadline is None else deadline - time.monotonic()
            if wait_s <= 0:
                break
            self._membership.check()
            found = await self._getmany(consumer, wait_s, limit)
            self._membership.check()
            if consumer.assignment() != self._next.keys():
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
        if not positions:
            return 0
        ends = await asyncio.wait_for(self._consumer.end_offsets(list(positions)), REQUEST_S)
        return sum(max(0, ends[partition] - position) for partition, position in positions.items())

    def copies_missing(self) -> int:
        """Copies of all partitions of its topics that are away or behind, as Kafka said last; 0 before it is open."""
        if self._consumer is None:
            return 0
        return missing_replicas(self._consumer, self.topics)

    def _opened(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise RuntimeError("expected an open log")
        return self._consumer

    @property
    def held(self) -> int:
        """Partitions that are read now."""
        return len(self._next)

    @property
    def is_open(self) -> bool:
        """Whether `open` has succeeded and `close` has not been called since."""
        return self._consumer is not None

    async def close(self) -> None:
        """Drop the connection, and leave the group."""
        self._next = {}
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await leave(consumer.stop, deadline_s=STOP_S)


def named(record: Record) -> str:
    """What a record's event is called: of a verdict, the identity of its frame."""
    return next((value.decode(errors="replace") for name, value in record.headers if name == "ce_id"), "")
