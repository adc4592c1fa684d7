"""What Kafka holds and its readers have not yet taken, read by its protocol: what the audit asks a cluster for.

Only records that wait are fetched: of those that a reader has taken, its offset says that they were there. So the cost
grows with what waits, not with what Kafka holds. A member of no group reads, and nothing is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CorruptRecordException, KafkaError

from infra.kafka_sets import KafkaSets, Waiting
from schemas.errors import BrokerError
from schemas.keys import KeyRing
from schemas.limits import MAX_BROKER_BYTES
from schemas.topics import PROCESSORS_GROUP, KafkaTopic
from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.kafka.clients import REQUEST_S, STOP_S, leave, start
from schemas.transport.kafka.damage import DamagePasser

SILENT_S: Final = 60.0
"""Kafka gives something within this time, or says that there is nothing: damage is looked for in it."""
_TOPICS: Final = (KafkaTopic.FRAMES, KafkaTopic.VERDICTS, KafkaTopic.DEAD_LETTERS)
_AT_ONCE: Final = 2_000

Offsets = Mapping[tuple[str, int], int]
"""By topic and partition."""


async def read_by_protocol(bootstrap: KafkaAddress, recorder: Offsets, keys: KeyRing) -> KafkaSets:
    """Read the Kafka at `bootstrap`; `recorder` holds the offsets at which the recorder goes on.

    Up to the end that each log has at the start. Raises BrokerError when Kafka does not answer.
    """
    sets = KafkaSets()
    try:
        partitions, taken = await _cluster(bootstrap)
        known = {tp.topic for tp in partitions}
        sets.unread += [f"Kafka: expected the topic {topic}, there is none" for topic in _TOPICS if topic not in known]
        consumer = AIOKafkaConsumer(
            **kafka_options(bootstrap),
            group_id=None,
            enable_auto_commit=False,
            # What Kafka deletes meanwhile is passed over.
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=MAX_BROKER_BYTES,
            fetch_max_bytes=4 * MAX_BROKER_BYTES,
            request_timeout_ms=REQUEST_S * 1000,
        )
        try:
            await start(consumer)
            await _read(consumer, partitions, {**recorder, **taken}, sets, keys)
        finally:
            await leave(consumer.stop, deadline_s=STOP_S)
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerError(f"expected Kafka at {bootstrap} to answer: {error or type(error).__name__}") from None
    return sets


async def _cluster(bootstrap: KafkaAddress) -> tuple[list[TopicPartition], dict[tuple[str, int], int]]:
    """The partitions of our topics, and the next frame that the processors will take of each of theirs."""
    admin = AIOKafkaAdminClient(**kafka_options(bootstrap), request_timeout_ms=REQUEST_S * 1000)
    try:
        await start(admin)
        async with asyncio.timeout(REQUEST_S):  # a group's coordinator is looked for for ever
            # Asked for by name, a topic that is not there would be made.
            found = await admin.describe_topics()
            committed = await admin.list_consumer_group_offsets(PROCESSORS_GROUP)
    finally:
        await leave(admin.close, deadline_s=STOP_S)
    partitions = [
        TopicPartition(topic["topic"], each["partition"])
        for topic in found
        if topic["topic"] in _TOPICS
        for each in topic["partitions"]
    ]
    taken = {
        (tp.topic, tp.partition): at.offset
        for tp, at in committed.items()
        if tp.topic == KafkaTopic.FRAMES and at.offset >= 0
    }
    return sorted(partitions), taken


async def _read(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], taken: Offsets, sets: KafkaSets, keys: KeyRing
) -> None:
    if not partitions:
        return
    begins = await consumer.beginning_offsets(partitions)
    ends = await consumer.end_offsets(partitions)
    sets.frames = sum(ends[tp] - begins[tp] for tp in partitions if tp.topic == KafkaTopic.FRAMES)
    # An offset beyond the end is of an earlier log: all of this one waits.
    following = {
        tp: at if begins[tp] <= at <= ends[tp] else begins[tp]
        for tp in partitions
        for at in [taken.get((tp.topic, tp.partition), begins[tp])]
    }
    if all(following[tp] >= ends[tp] for tp in partitions):
        return
    reader = _Reader(consumer, following, ends, sets)
    while waiting := reader.waiting():
        for tp, records in (await reader.some(waiting)).items():
            topic = KafkaTopic(tp.topic)
            for record in records:
                if record.offset < ends[tp]:
                    sets.take(topic, record, keys)


class _Reader:
    """Reads from given offsets to given ends, past damage, which it names."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        following: dict[TopicPartition, int],
        ends: dict[TopicPartition, int],
        sets: KafkaSets,
    ) -> None:
        self._consumer = consumer
        self._next = {tp: at for tp, at in following.items() if at < ends[tp]}
        self._ends = ends
        self._sets = sets
        self._damage = DamagePasser()
        consumer.assign(list(self._next))
        for tp, at in self._next.items():
            consumer.seek(tp, at)

    def waiting(self) -> list[TopicPartition]:
        """The partitions that have not been read to their end."""
        return [tp for tp, at in self._next.items() if at < self._ends[tp]]

    async def some(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, list[Waiting]]:
        """The next records of `partitions`."""
        try:
            async with asyncio.timeout(SILENT_S):
                return await self._some(partitions)
        except TimeoutError:
            raise TimeoutError(f"it gave nothing of {partitions[0].topic} for {SILENT_S:g} s") from None

    async def _some(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, list[Waiting]]:
        while True:
            if self._damage.careful:
                found, _ = await self._damage.getmany(self._consumer, partitions, _AT_ONCE)
            else:
                try:
                    found = await self._consumer.getmany(*partitions, timeout_ms=500)
                except CorruptRecordException:
                    # What the call had taken of other partitions is gone with it.
                    self._damage.met()
                    for tp in partitions:
                        self._consumer.seek(tp, self._next[tp])
                    continue
                await self._damage.pass_stalls(self._consumer, partitions)
            moved = False
            for tp in partitions:
                at = await self._consumer.position(tp)
                moved |= at > self._next[tp]
                missing = self._missing(tp, found.get(tp, []), at)
                if missing:
                    self._sets.unread.append(f"Kafka {tp.topic}-{tp.partition}: {missing}")
                self._next[tp] = at
            if moved or found:
                return found

    def _missing(self, tp: TopicPartition, records: Sequence[Waiting], position: int) -> str:
        """What was passed over of the offsets up to `position`; empty when nothing was."""
        expected, passed, first = self._next[tp], 0, -1
        for offset in (*(record.offset for record in records), position):
            if offset > expected:
                first = expected if first < 0 else first
                passed += offset - expected
            expected = offset + 1
        return f"{passed} records from offset {first} on are damaged or were deleted" if passed else ""
