"""The sender against a real Kafka: order, size limits, and brokers that hang or are down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from infra.local.kafka import Kafka
from schemas.transport.kafka.reader import Reader
from schemas.transport.kafka.sender import PlainRecord, Sender, partition_of
from tests.conftest import TopicFactory

SMALL = {"max.message.bytes": "1000"}


@pytest_asyncio.fixture
async def sender(kafka: Kafka) -> AsyncIterator[Sender]:
    made = Sender(kafka.bootstrap)
    yield made
    await made.close()


def plain(number: int, size: int = 0, key: bytes = b"key") -> PlainRecord:
    return PlainRecord(key, b"%d" % number + b"x" * size, [("ce_id", b"%d" % number)])


async def stored_records(kafka: Kafka, topic: str) -> list[tuple[int, bytes, bytes]]:
    """Return partition, key and value of all records of a topic."""
    found = []
    async with Reader(kafka.bootstrap, topic) as reader:
        async for batch in reader.fetch_until(await reader.ends(reader.assignment())):
            found += [(at.partition, each.key, each.value) for at, records in batch.items() for each in records]
    return found


@given(st.binary(min_size=1, max_size=40), st.integers(1, 12))
def test_the_partition_of_a_key_is_that_of_every_kafka_client(key: bytes, count: int) -> None:
    partitions = list(range(count))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, partitions, partitions)


@pytest.mark.brokers
async def test_records_of_a_key_keep_their_order_in_one_partition(
    sender: Sender, kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics(3)
    assert await sender.partitions(topic) == [0, 1, 2]
    records = [plain(number, key=b"key %d" % (number % 5)) for number in range(100)]
    delivered: list[PlainRecord] = []
    await sender.send(topic, records, delivered.append)
    assert sorted(delivered) == sorted(records)
    found = await stored_records(kafka, topic)
    for key in {record.key for record in records}:
        mine = [(partition, value) for partition, name, value in found if name == key]
        assert {partition for partition, _ in mine} == {partition_of(key, [0, 1, 2])}
        assert [value for _, value in mine] == [record.value for record in records if record.key == key]


@pytest.mark.brokers
async def test_a_rejected_single_attempt_raises_an_error_and_the_sender_continues(
    sender: Sender, kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics(config=SMALL)
    with pytest.raises(MessageSizeTooLargeError):
        await sender.send(topic, [plain(1, 2000)], once=True)
    await sender.send(topic, [plain(2)], once=True)
    await sender.close()
    await sender.send(topic, [plain(3)], once=True)
    assert [value for _, _, value in await stored_records(kafka, topic)] == [b"2", b"3"]


@pytest.mark.brokers
async def test_a_late_batch_is_resent_by_another_producer_once_kafka_answers(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics()
    reports: list[tuple[bool, str]] = []
    late = asyncio.Event()

    def note(ok: bool, detail: str) -> None:
        reports.append((ok, detail))
        if not ok:
            late.set()

    sender = Sender(kafka.bootstrap, deadline_s=0.5, on_health=note)
    try:
        await sender.send(topic, [plain(0)])
        assert reports[-1] == (True, "")
        late.clear()  # on a busy machine the first batch may be late, too
        kafka.pause()
        sending = asyncio.create_task(sender.send(topic, [plain(1)]))
        async with asyncio.timeout(60):
            await late.wait()
            kafka.resume()
            await sending
    finally:
        kafka.resume()
        await sender.close()
    # Kafka may have stored the late batch as well: readers drop duplicates.
    assert {value for _, _, value in await stored_records(kafka, topic)} == {b"0", b"1"}
    assert reports[-1] == (True, "")


@pytest.mark.brokers
async def test_a_sender_waits_for_a_stopped_kafka_and_a_single_attempt_fails(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics()
    sender = Sender(kafka.bootstrap)
    kafka.stop()
    try:
        with pytest.raises((KafkaError, OSError)):
            await sender.send(topic, [plain(0)], once=True)
        sending = asyncio.create_task(sender.send(topic, [plain(1)]))
    finally:
        kafka.start()
    async with asyncio.timeout(60):
        await sending
    await sender.close()
    assert [value for _, _, value in await stored_records(kafka, topic)] == [b"1"]
