"""Lanes over the Kafka stand-in: the time and size of batches, and the delivery of each record exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from producers.bridge.kafka import lanes as lanes_module
from producers.bridge.kafka.lanes import RECORD_OVERHEAD, Entry, Lane, Lanes, size_of
from producers.bridge.records import Record
from schemas.runtime.linger import Linger
from schemas.topics import KafkaTopic
from schemas.transport.kafka.sender import Sender
from tests.producers.kafka_stand_in import KafkaStandIn
from tests.waiting import PATIENCE_S, running

SIZE = 100 + RECORD_OVERHEAD


def record(value: bytes, topic: KafkaTopic = KafkaTopic.FRAMES, key: bytes = b"hall/door") -> Record:
    return Record(topic, key, value, [], None, "pointillist/v1/hall/door/frame", "frame")


def put(lane: Lane, number: int, size: int = 100) -> None:
    entry = record(bytes([number]) * size)
    lane.put((entry, None), size_of(entry))


def patient(linger_s: float) -> Linger:
    return Linger(linger_s, adapts=False)


def lane_of(linger: Linger, batch_bytes: int, partition: int = 0) -> Lane:
    """Return a lane with a timer of its own."""

    def wait(seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, lane.end_linger)

    lane = Lane(KafkaTopic.FRAMES, partition, linger, batch_bytes, wait)
    return lane


def take_values(lane: Lane) -> list[int]:
    return [entry.value[0] for entry, _ in lane.next_batch()]


@asynccontextmanager
async def running_lanes(
    kafka: KafkaStandIn,
    linger: Linger,
    note: Callable[[Lane, list[Entry], int], None],
    before_flush: Callable[[], None] = lambda: None,
) -> AsyncIterator[Lanes]:
    """Run lanes until the test is over; they are ready when the block begins."""
    sender = Sender("nowhere:1")
    lanes = Lanes(
        sender,
        linger,
        2**20,
        delivered=lambda lane, entries, offset, size, seconds: note(lane, entries, offset),
        refused=lambda refused, error: record(b"letter: " + refused.value[:2], KafkaTopic.DEAD_LETTERS),
        before_flush=before_flush,
    )
    try:
        async with running(lanes.run()):
            try:
                await asyncio.wait_for(lanes.ready.wait(), PATIENCE_S)
                yield lanes
            finally:
                kafka.answers.set()
    finally:
        await sender.close()


async def test_a_lane_is_due_when_its_first_record_has_lingered() -> None:
    lane = lane_of(patient(0.2), 10 * SIZE, partition=3)
    assert (lane.topic, lane.partition, lane.sent_at) == (KafkaTopic.FRAMES, 3, None)
    lane.end_linger()
    assert not lane.due.is_set()
    began = time.monotonic()
    for number in (1, 2):
        put(lane, number)
        assert began <= lane.first_at <= time.monotonic()
        assert not lane.due.is_set()
    await asyncio.wait_for(lane.due.wait(), 60)
    assert time.monotonic() - began >= 0.195
    assert take_values(lane) == [1, 2]
    assert not lane.due.is_set()
    assert take_values(lane) == []


async def test_a_record_is_sent_at_once_while_batches_take_little_of_the_time() -> None:
    linger = Linger(60.0)
    lane = lane_of(linger, 10 * SIZE)
    put(lane, 1)
    assert lane.due.is_set()
    assert take_values(lane) == [1]
    linger.begin(time.monotonic() - 60)  # a batch has been in flight for a minute
    put(lane, 2)
    assert not lane.due.is_set()
    lane.end_linger()
    assert take_values(lane) == [2]


async def test_records_of_other_lanes_are_sent_with_a_batch_that_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = KafkaStandIn(partitions=8)
    kafka.patch(monkeypatch)
    arrived = asyncio.Queue[bytes]()
    linger = patient(60.0)
    async with running_lanes(kafka, linger, lambda _, entries, __: arrived.put_nowait(entries[0][0].key)) as lanes:
        lanes.put(record(b"early", key=b"hall/0"), None)
        linger.most_s = 0.01
        lanes.put(record(b"late", key=b"hall/1"), None)
        keys = {await asyncio.wait_for(arrived.get(), PATIENCE_S) for _ in range(2)}
    assert keys == {b"hall/0", b"hall/1"}
    assert len(kafka.log) == 2  # in two partitions


async def test_a_lane_is_due_at_once_when_it_is_full_or_its_linger_is_ended() -> None:
    lane = lane_of(patient(60.0), 3 * SIZE)
    for first in (0, 3):  # and again after the batch was taken
        put(lane, first)
        put(lane, first + 1, 99)
        assert not lane.due.is_set()
        put(lane, first + 2, 100)
        assert not lane.due.is_set()  # one byte is left
        assert take_values(lane) == [first, first + 1, first + 2]
    for number in range(3):
        assert not lane.due.is_set()
        put(lane, number)
    assert lane.due.is_set()
    assert take_values(lane) == [0, 1, 2]
    put(lane, 3)
    assert not lane.due.is_set()
    lane.end_linger()
    assert lane.due.is_set()
    assert take_values(lane) == [3]


@pytest.mark.parametrize("batch_bytes", [2 * SIZE, 3 * SIZE - 1])
async def test_a_batch_is_filled_up_to_its_limit_and_has_at_least_one_record(batch_bytes: int) -> None:
    lane = lane_of(patient(60.0), batch_bytes)
    put(lane, 0, 10_000)
    for number in range(1, 6):
        put(lane, number)
    before = time.monotonic()
    assert take_values(lane) == [0]
    assert lane.due.is_set()
    assert lane.first_at >= before
    assert [take_values(lane) for _ in range(3)] == [[1, 2], [3, 4], [5]]
    assert not lane.due.is_set()
    put(lane, 6)
    assert not lane.due.is_set()


async def test_records_read_at_the_end_of_a_linger_join_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = KafkaStandIn(partitions=8)
    kafka.patch(monkeypatch)
    batches = asyncio.Queue[list[bytes]]()
    lingering: list[bool] = []

    def read() -> None:
        lingering.append(lanes.is_lingering)
        for number in range(3):
            lanes.put(record(b"read", key=b"hall/%d" % number), None)

    def note(_lane: Lane, entries: list[Entry], _offset: int) -> None:
        batches.put_nowait([each.key for each, _ in entries])

    async with running_lanes(kafka, patient(0.05), note, read) as lanes:
        lingering.append(lanes.is_lingering)
        lanes.put(record(b"first", key=b"hall/0"), None)
        found = [await asyncio.wait_for(batches.get(), PATIENCE_S) for _ in range(3)]
        lingering.append(lanes.is_lingering)
    assert lingering == [False, True, False]
    assert sorted(found) == [[b"hall/0", b"hall/0"], [b"hall/1"], [b"hall/2"]]


async def test_a_long_linger_does_not_stop_reading_from_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = KafkaStandIn()
    kafka.patch(monkeypatch)
    async with running_lanes(kafka, patient(60.0), lambda *_: None) as lanes:
        lanes.put(record(b"first"), None)
        assert not lanes.is_lingering


async def test_a_key_keeps_its_partition_and_the_buffered_bytes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "KEYS", 4)
    kafka = KafkaStandIn(partitions=3)
    kafka.patch(monkeypatch)
    kafka.answers.clear()
    async with running_lanes(kafka, patient(60.0), lambda *_: None) as lanes:
        assert lanes.partitions(KafkaTopic.FRAMES) == [0, 1, 2]
        assert (lanes.stalled_s(), lanes.buffered_bytes) == (0.0, 0)
        await asyncio.wait_for(lanes.drain(), 60)
        for number in range(60):
            lanes.put(record(bytes(100), key=b"hall/%d" % (number % 20)), None)
            assert len(lanes._lane_of) <= 4
        assert lanes.buffered_bytes == 60 * SIZE
        draining = asyncio.create_task(lanes.drain())
        await asyncio.sleep(0.05)  # a drain that did not wait would end in this time
        assert not draining.done()
        assert 0.0 < lanes.stalled_s() < 60.0
        kafka.answers.set()
        await asyncio.wait_for(draining, 60)
        assert (lanes.buffered_bytes, lanes.stalled_s()) == (0, 0.0)
    found = [{each.key for each in kafka.log[KafkaTopic.FRAMES.value, partition]} for partition in range(3)]
    assert sorted(key for keys in found for key in keys) == sorted(b"hall/%d" % number for number in range(20))


async def test_records_beyond_a_batch_go_into_others_and_only_sent_records_are_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = KafkaStandIn(partitions=1)
    kafka.patch(monkeypatch)
    kafka.room = 100
    delivered: list[bytes] = []

    def note(lane: Lane, entries: list[Entry], offset: int) -> None:
        sent = [found.value for found in kafka.log[lane.topic.value, lane.partition]]
        values = [entry.value for entry, _ in entries]
        assert sent[offset : offset + len(values)] == values
        delivered.extend(values)

    frames = [f"{number:02}".encode() * 15 for number in range(10)]
    async with running_lanes(kafka, Linger(0.001), note) as lanes:
        for value in [*frames[:5], b"xx" * 60, *frames[5:]]:
            lanes.put(record(value), None)
        await asyncio.wait_for(lanes.drain(), PATIENCE_S)
    assert sorted(delivered) == sorted([*frames, b"letter: xx"])
    assert [found.value for found in kafka.sent(KafkaTopic.FRAMES)] == frames
    assert [found.value for found in kafka.sent(KafkaTopic.DEAD_LETTERS)] == [b"letter: xx"]
