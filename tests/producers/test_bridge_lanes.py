"""Lanes against a producer whose batches have little room."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from producers.bridge.kafka.lanes import Entry, Lane, Lanes
from producers.bridge.records import Record
from schemas.runtime.linger import Linger
from schemas.topics import KafkaTopic


class Batch:
    """Takes as many bytes of values as it has room for; what comes then is refused by None."""

    def __init__(self, room: int) -> None:
        self.values: list[bytes] = []
        self._room = room

    def append(self, *, value: bytes, **_: Any) -> object | None:
        if len(value) > self._room:
            return None
        self._room -= len(value)
        self.values.append(value)
        return object()

    def close(self) -> None: ...


class Producers:
    """Stands for `producers.bridge.kafka.producers.Producers` and for its producer."""

    def __init__(self, room: int) -> None:
        self.given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent: dict[str, list[list[bytes]]] = {topic.value: [] for topic in KafkaTopic}
        self.replaced = 0
        self._room = room

    async def partitions(self, topics: Any) -> dict[KafkaTopic, list[int]]:
        return {topic: [0] for topic in topics}

    async def current(self) -> Producers:
        return self

    def replace(self, *_: object) -> None:
        self.replaced += 1

    def create_batch(self) -> Batch:
        return Batch(self._room)

    async def send_batch(self, batch: Batch, topic: str, partition: int) -> asyncio.Future[SimpleNamespace]:
        assert partition == 0
        done: asyncio.Future[SimpleNamespace] = asyncio.get_running_loop().create_future()
        done.set_result(SimpleNamespace(offset=sum(map(len, self.sent[topic]))))
        self.sent[topic].append(batch.values)
        return done


def record(topic: KafkaTopic, value: bytes) -> Record:
    return Record(topic, b"hall/door", value, [], None, "pointillist/v1/hall/door/frame", "frame")


async def test_records_for_which_a_batch_has_no_room_are_sent_in_others_and_only_sent_ones_are_delivered() -> None:
    producers = Producers(room=100)
    delivered: list[bytes] = []

    def note(lane: Lane, entries: list[Entry], offset: int, size: int, seconds: float) -> None:
        sent = {value for batch in producers.sent[lane.topic.value] for value in batch}
        assert sent >= {entry.value for entry, _ in entries}
        delivered.extend(entry.value for entry, _ in entries)

    lanes = Lanes(
        producers,  # type: ignore[arg-type]  # a stand-in
        Linger(0.001),
        2**20,
        5.0,
        delivered=note,
        failed=lambda: None,
        refused=lambda refused, error: record(KafkaTopic.DEAD_LETTERS, b"letter: " + refused.value[:2]),
    )
    running = asyncio.create_task(lanes.run())
    try:
        await lanes.ready.wait()
        frames = [f"{number:02}".encode() * 15 for number in range(10)] + [b"xx" * 60]
        for value in frames:
            lanes.put(record(KafkaTopic.FRAMES, value), None)
        async with asyncio.timeout(10):
            await lanes.drain()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sorted(delivered) == sorted([*frames[:10], b"letter: xx"])
    assert [value for batch in producers.sent[KafkaTopic.FRAMES.value] for value in batch] == frames[:10]
    assert producers.sent[KafkaTopic.DEAD_LETTERS.value] == [[b"letter: xx"]]
    assert producers.replaced == 0


class Ended(Producers):
    """Its first producer is given up while a batch waits for metadata, and never answers."""

    async def send_batch(self, batch: Batch, topic: str, partition: int) -> asyncio.Future[SimpleNamespace]:
        if not self.replaced:
            self.replaced += 1
            before, self.given_up = self.given_up, asyncio.get_running_loop().create_future()
            before.set_result(None)
            await asyncio.Event().wait()
        return await super().send_batch(batch, topic, partition)


async def test_a_batch_that_a_given_up_producer_never_took_goes_to_the_next_one() -> None:
    producers = Ended(room=100)
    delivered: list[bytes] = []
    lanes = Lanes(
        producers,  # type: ignore[arg-type]  # a stand-in
        Linger(0.001),
        2**20,
        60.0,
        delivered=lambda lane, entries, offset, size, seconds: delivered.extend(entry.value for entry, _ in entries),
        failed=lambda: None,
        refused=lambda refused, error: refused,
    )
    running = asyncio.create_task(lanes.run())
    try:
        await lanes.ready.wait()
        lanes.put(record(KafkaTopic.FRAMES, b"frame"), None)
        async with asyncio.timeout(10):
            await lanes.drain()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert delivered == [b"frame"]
