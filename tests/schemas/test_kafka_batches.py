"""The sender over the Kafka stand-in: sizes of batches, rejected records, single attempts, and replaced producers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import structlog
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import TopicPartition

import schemas.transport.kafka.produce_requests as produce_module
import schemas.transport.kafka.producers as producers_module
from schemas.transport.kafka.sender import PlainRecord, Sender, partition_of
from tests.producers.kafka_stand_in import Batch, KafkaStandIn, Producer, produce
from tests.waiting import until


class Gate:
    """Kafka's answers for one partition: the first one waits until the gate opens, or all are errors until then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, partition: int, error: KafkaError | None = None) -> None:
        self.open = asyncio.Event()
        self.reached = asyncio.Event()
        self._partition = partition
        self._error = error
        monkeypatch.setattr(produce_module, "produce", self._produce)

    async def _produce(
        self, producer: Producer, node: int, batches: dict[TopicPartition, Batch]
    ) -> dict[TopicPartition, object]:
        if any(place.partition == self._partition for place in batches):
            if self._error is not None and not self.open.is_set():
                return dict.fromkeys(batches, self._error)
            if not self.reached.is_set():
                self.reached.set()
                await self.open.wait()
        return await produce(producer, node, batches)


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> KafkaStandIn:
    made = KafkaStandIn(partitions=3)
    made.patch(monkeypatch)
    monkeypatch.setattr(random, "uniform", lambda *_: 0.01)
    return made


@pytest.fixture
async def sender(kafka: KafkaStandIn) -> AsyncIterator[Sender]:
    made = Sender("nowhere:1")
    yield made
    await made.close(0.1)


def numbered(count: int, key: bytes = b"key") -> list[PlainRecord]:
    return [PlainRecord(key, b"%d" % number, []) for number in range(count)]


async def delivered_sizes(sender: Sender, records: Sequence[PlainRecord], partition: int = 0) -> list[tuple[int, int]]:
    """Deliver the records, check that all arrive in order, and return the count and first offset of each batch."""
    delivered: list[PlainRecord] = []
    found = []

    def note(batch: Sequence[PlainRecord], offset: int) -> None:
        delivered.extend(batch)
        found.append((len(batch), offset))

    await sender.deliver("topic", partition, records, note)
    assert delivered == list(records)
    return found


async def test_a_batch_that_is_too_large_is_halved_until_it_fits_and_the_next_ones_grow_again(
    kafka: KafkaStandIn, sender: Sender
) -> None:
    kafka.batch_errors.extend([MessageSizeTooLargeError()] * 2)
    assert await delivered_sizes(sender, numbered(13)) == [(3, 0), (6, 3), (4, 9)]
    assert [len(batch) for _, _, batch in kafka.batches] == [13, 6, 3, 6, 4]
    assert [record.value for record in kafka.log["topic", 0]] == [record.value for record in numbered(13)]


async def test_records_beyond_the_capacity_of_a_batch_go_into_the_next_one(kafka: KafkaStandIn, sender: Sender) -> None:
    kafka.room = 4
    assert await delivered_sizes(sender, numbered(10), partition=2) == [(4, 0), (4, 4), (2, 8)]


async def test_an_oversized_record_is_shrunk_or_rejected_and_the_others_keep_their_order(
    kafka: KafkaStandIn, sender: Sender
) -> None:
    kafka.room = 5
    records = [PlainRecord(b"key", value, []) for value in (b"first", b"shrinks-to", b"too-large", b"last")]
    delivered: list[bytes | None] = []
    reasons = []
    await sender.deliver(
        "topic",
        1,
        records,
        lambda batch, _: delivered.extend(record.value for record in batch),
        shrink=lambda record: record._replace(value=b"small") if record.value == b"shrinks-to" else None,
        refused=lambda record, why: reasons.append((record, why)),
    )
    assert delivered == [b"first", b"small", b"last"]
    ((record, why),) = reasons
    assert record == records[2]
    assert why.startswith("Kafka refused 9 bytes: ")


async def test_each_record_is_sent_to_the_partition_of_its_key(kafka: KafkaStandIn, sender: Sender) -> None:
    records = [record for key in (b"a", b"b", b"c", b"d") for record in numbered(3, key)]
    delivered: list[PlainRecord] = []
    await sender.send("topic", records, delivered.append)
    assert sorted(delivered) == sorted(records)
    found = {place: [(record.key, record.value) for record in log] for place, log in kafka.log.items()}
    partitions = {record.key: partition_of(record.key, [0, 1, 2]) for record in records}
    assert len(set(partitions.values())) > 1
    assert found == {
        ("topic", partition): [(r.key, r.value) for r in records if partitions[r.key] == partition]
        for partition in set(partitions.values())
    }


async def test_a_single_attempt_raises_its_error_after_the_other_partitions_are_done(
    kafka: KafkaStandIn, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {partition_of(key, [0, 1, 2]): key for key in (b"%d" % number for number in range(50))}
    gate = Gate(monkeypatch, 1)
    delivered: list[PlainRecord] = []
    kafka.room = 5
    records = [PlainRecord(names[0], b"too large", []), PlainRecord(names[1], b"value", [])]
    sending = asyncio.create_task(sender.send("topic", records, delivered.append, once=True))
    await asyncio.wait([sending], timeout=0.05)
    assert not sending.done()
    gate.open.set()
    with pytest.raises(Exception, match="record of 9 bytes: expected room in a batch"):
        await sending
    assert delivered == records[1:]
    kafka.batch_errors.append(KafkaError("out of order"))
    with pytest.raises(KafkaError, match="out of order"):
        await sender.send("topic", records[1:], delivered.append, once=True)
    kafka.partition_errors.append(KafkaError("no such topic"))
    with pytest.raises(KafkaError, match="no such topic"):
        await sender.send("topic", records[1:], delivered.append, once=True)
    assert delivered == records[1:]


async def test_a_start_is_retried_without_limit_unless_only_one_attempt_is_allowed(
    kafka: KafkaStandIn, sender: Sender
) -> None:
    kafka.start_error = KafkaError("no broker")
    with pytest.raises(KafkaError, match="no broker"):
        await sender.send("topic", numbered(1), once=True)
    assert len(kafka.producers) == 1
    waiting = [asyncio.create_task(work) for work in (sender.connect(), sender.partitions("topic"))]
    await until(lambda: len(kafka.producers) > 3, "several attempts")
    assert not any(task.done() for task in waiting)
    kafka.start_error = None
    assert await asyncio.wait_for(asyncio.gather(*waiting), 60) == [None, [0, 1, 2]]
    assert [producer.running for producer in kafka.producers] == [False] * (len(kafka.producers) - 1) + [True]


async def test_a_working_partition_does_not_hide_a_failing_one(
    kafka: KafkaStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[tuple[bool, str]] = []
    failed: list[None] = []
    gate = Gate(monkeypatch, 0, KafkaError("no leader"))
    sender = Sender(
        "nowhere:1", on_health=lambda ok, why: reports.append((ok, why)), on_failure=lambda: failed.append(None)
    )
    refused = asyncio.create_task(delivered_sizes(sender, numbered(1), partition=0))
    await until(lambda: len(failed) > 2, "several attempts")
    assert reports[0] == (True, "")
    reports.clear()
    await delivered_sizes(sender, numbered(1), partition=1)
    # An attempt interrupted by another batch's new producer is a failure too.
    assert reports
    assert not any(ok for ok, _ in reports)
    gate.open.set()
    assert await refused == [(1, 0)]
    assert reports[-1] == (True, "")
    reports.clear()
    await delivered_sizes(sender, numbered(1), partition=1)
    assert reports == []
    await sender.close(0.1)


async def test_a_working_topic_does_not_hide_a_missing_one(
    kafka: KafkaStandIn, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[bool] = []
    monkeypatch.setattr(sender, "_on_health", lambda ok, _: reports.append(ok))
    lost = {"lost"}

    async def partitions_for(producer: Producer, topic: str) -> set[int]:
        if topic in lost:
            raise KafkaError("no such topic")
        return kafka.partitions

    monkeypatch.setattr(Producer, "partitions_for", partitions_for)
    waiting = asyncio.create_task(sender.send("lost", numbered(1)))
    await until(lambda: False in reports, "an attempt")
    reports.clear()
    await sender.send("topic", numbered(1))
    assert True not in reports
    lost.clear()
    await waiting
    assert reports[-1] is True


async def test_a_partition_is_healthy_again_after_its_batch_was_cancelled(
    kafka: KafkaStandIn, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gate(monkeypatch, 0, KafkaError("no leader"))
    reports: list[bool] = []
    monkeypatch.setattr(sender, "_on_health", lambda ok, _: reports.append(ok))
    refused = asyncio.create_task(delivered_sizes(sender, numbered(1), partition=0))
    await until(lambda: reports.count(False) > 2, "several attempts")
    refused.cancel()
    await asyncio.wait([refused])
    await delivered_sizes(sender, numbered(1), partition=1)
    assert reports[-1] is True


async def test_a_batch_rejected_for_its_size_replaces_the_producer_and_leaves_other_batches_in_flight(
    kafka: KafkaStandIn, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, 1)
    slow = asyncio.create_task(delivered_sizes(sender, numbered(2), partition=1))
    await asyncio.wait_for(gate.reached.wait(), 60)
    kafka.batch_errors.append(MessageSizeTooLargeError())
    with structlog.testing.capture_logs() as logs:
        assert await delivered_sizes(sender, numbered(2), partition=0) == [(1, 0), (1, 1)]
    assert [(entry["event"], "MessageSizeTooLargeError" in entry["error"]) for entry in logs] == [
        ("producer_replaced", True)
    ]
    assert [producer.running for producer in kafka.producers] == [True, True]
    gate.open.set()
    assert await slow == [(2, 0)]
    await until(lambda: [producer.running for producer in kafka.producers] == [False, True], "the first one closed")
    assert len(kafka.batches) == 4


async def test_a_failed_batch_ends_the_wait_of_other_batches_on_its_producer(
    kafka: KafkaStandIn, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, 1)
    slow = asyncio.create_task(delivered_sizes(sender, numbered(2), partition=1))
    await asyncio.wait_for(gate.reached.wait(), 60)
    kafka.batch_errors.append(KafkaError("out of order"))
    with structlog.testing.capture_logs() as logs:
        assert await delivered_sizes(sender, numbered(2), partition=0) == [(2, 0)]
    replaced = [entry["error"] for entry in logs if entry["event"] == "producer_replaced"]
    assert replaced == [repr(KafkaError("out of order"))]
    assert await asyncio.wait_for(slow, 60) == [(2, 0)]
    assert not gate.open.is_set()
    await until(lambda: [producer.running for producer in kafka.producers] == [False, True], "the first one closed")


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_producer_that_fails_to_stop_is_closed(
    kafka: KafkaStandIn, sender: Sender, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(producers_module, "CLOSE_S", 0.01)
    await delivered_sizes(sender, numbered(1))
    (producer,) = kafka.producers

    async def broken() -> None:
        raise OSError("connection lost")

    if hangs:
        kafka.closing.clear()
    monkeypatch.setattr(producer, "stop", broken)
    await asyncio.wait_for(sender.close(0.1), 20)
    assert (producer.running, producer.ended) == (False, 1)
    kafka.closing.set()


async def test_a_producer_has_the_options_of_its_sender(kafka: KafkaStandIn) -> None:
    found: list[dict[str, Any]] = []
    for options in ({}, {"name": "b1", "batch_bytes": 77}):
        made = Sender("nowhere:1", **options)  # type: ignore[arg-type]  # its own options
        await made.connect()
        await made.connect()
        await made.close(0.1)
        found.append(kafka.producers[-1].options)
    assert len(kafka.producers) == 2
    unnamed, named = found
    assert "client_id" not in unnamed
    assert (named["client_id"], named["max_batch_size"]) == ("b1", 77)
    assert (unnamed["acks"], unnamed["enable_idempotence"]) == ("all", True)


async def test_a_replaced_producer_stays_open_until_its_pending_request_is_answered(
    kafka: KafkaStandIn, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, requested = asyncio.Event(), asyncio.Event()

    async def answer_late(_: Producer, topic: str) -> set[int]:
        requested.set()
        await answers.wait()
        return {0}

    monkeypatch.setattr(Producer, "partitions_for", answer_late)
    pending = asyncio.create_task(sender.partitions("t"))
    await requested.wait()
    producers = sender._producers
    connection = await producers.current()
    producers.replace(connection, KafkaError("late"), broken=True)
    producers.retire(connection)
    await asyncio.sleep(0.05)
    assert kafka.producers[0].ended == 0
    answers.set()
    assert await pending == [0]
    await until(lambda: kafka.producers[0].ended > 0, "the end of the producer")
