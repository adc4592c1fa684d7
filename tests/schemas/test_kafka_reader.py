"""The reader against a real Kafka: positions, groups, damage, and a node that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, UnknownTopicOrPartitionError
from aiokafka.structs import TopicPartition

from infra.local.kafka import Kafka
from schemas.transport.kafka.internals import produce
from schemas.transport.kafka.reader import Group, Reader
from schemas.transport.kafka.sender import PlainRecord, Sender
from tests.conftest import TopicFactory
from tests.kafka_files import damage_batch, misnamed_batch
from tests.processors.rig import delete_topics
from tests.waiting import PATIENCE_S, until

WAIT_S = 0.5


async def fill(kafka: Kafka, topic: str, numbers: range, partition: int = 0, batch: int = 1000) -> None:
    """Write one record a number, in batches of this many."""
    sender = Sender(kafka.bootstrap)
    try:
        for first in range(numbers.start, numbers.stop, batch):
            records = [
                PlainRecord(b"key", b"%d" % number, []) for number in range(first, min(first + batch, numbers.stop))
            ]
            await sender.deliver(topic, partition, records, lambda _records, _offset: None)
    finally:
        await sender.close()


async def read(reader: Reader, count: int) -> list[int]:
    """Return the numbers of at least this many next records, whatever Kafka does meanwhile."""
    found: list[int] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            for records in (await reader.fetch(wait_s=WAIT_S)).values():
                found += [int(record.value) for record in records]
    return found


@pytest.mark.brokers
async def test_all_partitions_are_read_from_the_beginning_or_the_end(kafka: Kafka, kafka_topics: TopicFactory) -> None:
    topic = await kafka_topics(2)
    await fill(kafka, topic, range(3))
    await fill(kafka, topic, range(3, 6), partition=1)
    async with Reader(kafka.bootstrap, topic) as first, Reader(kafka.bootstrap, topic, begin="latest") as latest:
        assert first.assignment() == [TopicPartition(topic, 0), TopicPartition(topic, 1)]
        assert sorted(await read(first, 6)) == list(range(6))
        assert await latest.fetch(wait_s=0.1) == {}
        await fill(kafka, topic, range(6, 8))
        assert await read(latest, 2) == [6, 7]


@pytest.mark.brokers
async def test_a_part_of_a_log_is_read_from_one_offset_to_another(kafka: Kafka, kafka_topics: TopicFactory) -> None:
    topic = await kafka_topics()
    place = TopicPartition(topic, 0)
    await fill(kafka, topic, range(10), batch=2)
    async with Reader(kafka.bootstrap) as reader:
        assert await reader.beginnings([place]) == {place: 0}
        assert await reader.ends([place]) == {place: 10}
        assert await reader.ends([]) == {}
        reader.assign([place])
        reader.seek({place: 4})
        found = [int(record.value) async for batch in reader.fetch_until({place: 8}) for record in batch[place]]
        assert found[:4] == [4, 5, 6, 7]
        await reader.seek_to_beginning(place)
        assert await reader.position(place) == 0


@pytest.mark.brokers
async def test_an_offset_that_kafka_does_not_have_is_an_error_without_a_start_position(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics()
    async with Reader(kafka.bootstrap, begin="none") as reader:
        reader.assign([TopicPartition(topic, 0)])
        reader.seek({TopicPartition(topic, 0): 100})
        with pytest.raises(OffsetOutOfRangeError):
            await read(reader, 1)


@pytest.mark.brokers
async def test_a_damaged_batch_is_skipped_and_counted_and_other_partitions_are_read_once(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics(2)
    await fill(kafka, topic, range(20), batch=4)
    await fill(kafka, topic, range(100, 120), partition=1, batch=4)
    damage_batch(Path(kafka.folder) / "data" / f"{topic}-0" / f"{0:020d}.log", 2)
    skipped: list[int] = []
    async with Reader(kafka.bootstrap, topic, on_skipped=skipped.append) as reader:
        found: list[int] = []
        async with asyncio.timeout(60):
            while len(found) + sum(skipped) < 40:
                for records in (await reader.fetch(wait_s=WAIT_S)).values():
                    found += [int(record.value) for record in records]
    assert sorted(set(range(20)) - set(found)) == list(range(8, 8 + sum(skipped)))
    assert 0 < sum(skipped) <= 4
    assert len(found) == len(set(found))
    assert set(range(100, 120)) <= set(found)


@pytest.mark.brokers
async def test_an_invalid_header_name_costs_only_the_rest_of_its_batch(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    # Kafka accepts the batch, which needs one skip whatever its number of records.
    topic = await kafka_topics(2)
    place = TopicPartition(topic, 0)
    await fill(kafka, topic, range(4))
    await fill(kafka, topic, range(100, 104), partition=1)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await producer.partitions_for(topic)
        node = producer.client.cluster.leader_for_partition(place)
        batch = misnamed_batch([b"%d" % number for number in range(4, 1004)], 2)
        assert await produce(producer, node, {place: batch}) == {place: 4}
    await fill(kafka, topic, range(1004, 1008))
    skipped: list[int] = []
    async with Reader(kafka.bootstrap, topic, on_skipped=skipped.append) as reader:
        found = await read(reader, 14)
    assert sorted(found) == [*range(6), *range(100, 104), *range(1004, 1008)]
    assert skipped == [998]


class Assignments(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no annotations
    def __init__(self) -> None:
        self.partitions: set[TopicPartition] = set()

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.partitions.clear()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.partitions = set(assigned)


@pytest.mark.brokers
async def test_members_of_a_group_share_partitions_and_continue_at_committed_offsets(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics(2)
    await fill(kafka, topic, range(5))
    first, second = Assignments(), Assignments()
    group = f"group-{topic}"
    one = Reader(kafka.bootstrap, topic, group=Group(group, 6.0, first))
    two = Reader(kafka.bootstrap, topic, group=Group(group, 6.0, second))
    try:
        await one.open()
        assert await read(one, 5) == list(range(5))
        await one.commit({TopicPartition(topic, 0): (3, "a note"), TopicPartition(topic, 1): 0})
        assert await one.committed_notes([TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): "a note"}
        assert one.partitions_of(topic) == {0, 1}
        await two.open()
        await until(lambda: len(first.partitions) == len(second.partitions) == 1, "each member with a partition")
        await one.close()
        await until(lambda: len(second.partitions) == 2, "all partitions with the remaining member")
        assert await read(two, 2) == [3, 4]
        await one.open()
        assert one.is_open
    finally:
        await one.close()
        await two.close()
    assert not one.is_open


@pytest.mark.brokers
async def test_a_commit_to_a_deleted_topic_fails_and_shows_that_it_is_missing(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics()
    place = TopicPartition(topic, 0)
    await fill(kafka, topic, range(50))

    async def commit_fails() -> bool:
        try:
            # aiokafka alone would retry until another topic of that name exists, and commit the old offset to it.
            await asyncio.wait_for(reader.commit({place: 5}), PATIENCE_S)
        except UnknownTopicOrPartitionError:
            return True
        return False  # the broker deletes a moment later

    group = Group(f"group-{topic}", 60.0, Assignments())
    async with Reader(kafka.bootstrap, topic, group=group) as reader:
        # The other records wait in the reader, which therefore does not fetch and notices nothing by itself.
        async with asyncio.timeout(PATIENCE_S):
            while not await reader.fetch(wait_s=WAIT_S, most=5):
                pass
        assert not reader.is_missing(topic)
        await delete_topics(kafka.bootstrap, topic)
        await until(commit_fails, "a failed commit")
        assert reader.is_missing(topic)


@pytest.mark.brokers
async def test_a_static_member_keeps_its_partitions_until_it_leaves_permanently(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics(2)
    first, second = Assignments(), Assignments()
    session_s = 45.0
    one, two = (
        Reader(kafka.bootstrap, topic, group=Group(f"group-{topic}", session_s, listener, instance=name))
        for name, listener in (("one", first), ("two", second))
    )
    try:
        await one.open()
        await two.open()
        await until(lambda: len(first.partitions) == len(second.partitions) == 1, "each member with a partition")
        await one.close()
        await one.open()
        await until(lambda: len(first.partitions) == 1, "the same partition again")
        assert len(second.partitions) == 1, "expected no rebalance"
        began = asyncio.get_running_loop().time()
        await one.close(20.0, keeps_place=False)
        await until(lambda: len(second.partitions) == 2, "all partitions with the remaining member")
        assert asyncio.get_running_loop().time() - began < session_s, "expected a rebalance before the session expires"
    finally:
        await one.close()
        await two.close()


@pytest.mark.brokers
async def test_a_reader_continues_after_a_hang_of_kafka_and_a_member_that_cannot_leave_closes_in_time(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics()
    await fill(kafka, topic, range(3))
    group = Group(f"group-{topic}", 6.0, Assignments())
    member = Reader(kafka.bootstrap, topic, group=group)
    async with Reader(kafka.bootstrap, topic) as reader:
        assert await read(reader, 3) == [0, 1, 2]
        await member.open()
        kafka.pause()
        try:
            async with asyncio.timeout(30):
                await member.close(0.5)
                with pytest.raises((KafkaError, OSError)):
                    await Reader(kafka.bootstrap, topic, request_s=0.2).open()
        finally:
            kafka.resume()
        await fill(kafka, topic, range(3, 5))
        assert await read(reader, 2) == [3, 4]


class Rebalanced:
    """A consumer whose group rebalances during the request for the ends; its committed offset is 50."""

    def __init__(self) -> None:
        self._position = 100
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=object()))

    async def end_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        self._position = 50
        return dict.fromkeys(places, 1000)

    async def position(self, place: TopicPartition) -> int:
        return self._position

    async def getmany(self, place: TopicPartition, **options: object) -> dict[TopicPartition, list[SimpleNamespace]]:
        offset, self._position = self._position, self._position + 1
        return {place: [SimpleNamespace(offset=offset)]}


async def test_a_rebalance_during_a_fetch_discards_records_of_the_earlier_assignment() -> None:
    place = TopicPartition("topic", 0)
    reader = Reader("127.0.0.1:1", "topic", group=Group("group", 6.0, Assignments()))
    reader._consumer = cast(AIOKafkaConsumer, Rebalanced())
    found = await reader.fetch(place, wait_s=WAIT_S)
    assert [record.offset for record in found[place]] == [50]


class Shrunk(Rebalanced):
    """A consumer whose group has assigned one of its partitions to another member."""

    def __init__(self) -> None:
        super().__init__()
        self.requested_ends: list[TopicPartition] = []

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition("topic", 1)}

    def seek(self, place: TopicPartition, offset: int) -> None:
        pass

    async def end_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        self.requested_ends += places
        return await super().end_offsets(places)

    async def getmany(self, *places: TopicPartition, **options: object) -> dict[TopicPartition, list[SimpleNamespace]]:
        return {}


async def test_a_member_checks_only_assigned_partitions_for_stalls() -> None:
    reader = Reader("127.0.0.1:1", "topic", group=Group("group", 6.0, Assignments()))
    consumer = Shrunk()
    reader._consumer = cast(AIOKafkaConsumer, consumer)
    reader.seek({TopicPartition("topic", 0): 5, TopicPartition("topic", 1): 5})
    await reader.fetch(wait_s=WAIT_S)
    assert consumer.requested_ends == [TopicPartition("topic", 1)]


async def test_a_closed_reader_raises_an_error() -> None:
    reader = Reader("127.0.0.1:1", "topic")
    with pytest.raises(RuntimeError, match="expected it to be open"):
        await reader.fetch(wait_s=WAIT_S)
    await reader.close()
    assert reader.missing_replicas() == 0
