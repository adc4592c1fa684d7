"""Lanes over the Kafka stand-in: each record is delivered once; one that Kafka never takes becomes a dead letter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from producers.bridge.kafka.lanes import Entry, Lane, Lanes
from producers.bridge.records import Record
from schemas.runtime.linger import Linger
from schemas.topics import KafkaTopic
from schemas.transport.kafka.sender import Sender
from tests.producers.kafka_stand_in import KafkaStandIn


def record(topic: KafkaTopic, value: bytes) -> Record:
    return Record(topic, b"hall/door", value, [], None, "pointillist/v1/hall/door/frame", "frame")


async def delivered_by(values: list[bytes], note: Callable[[Lane, list[Entry], int], None]) -> None:
    """Send frames by lanes until all are delivered."""
    sender = Sender("nowhere:1")
    lanes = Lanes(
        sender,
        Linger(0.001),
        2**20,
        delivered=lambda lane, entries, offset, size, seconds: note(lane, entries, offset),
        refused=lambda refused, error: record(KafkaTopic.DEAD_LETTERS, b"letter: " + refused.value[:2]),
    )
    running = asyncio.create_task(lanes.run())
    try:
        await lanes.ready.wait()
        for value in values:
            lanes.put(record(KafkaTopic.FRAMES, value), None)
        async with asyncio.timeout(10):
            await lanes.drain()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await sender.close()


async def test_records_for_which_a_batch_has_no_room_are_sent_in_others_and_only_sent_ones_are_delivered(
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
    await delivered_by([*frames[:5], b"xx" * 60, *frames[5:]], note)
    assert sorted(delivered) == sorted([*frames, b"letter: xx"])
    assert [found.value for found in kafka.sent(KafkaTopic.FRAMES)] == frames
    assert [found.value for found in kafka.sent(KafkaTopic.DEAD_LETTERS)] == [b"letter: xx"]
