"""One lane: when its batch is due, and how much of what waits goes into it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest

from producers.bridge.kafka import lanes as lanes_module
from producers.bridge.kafka.lanes import RECORD_OVERHEAD, Lane, Lanes, size_of
from producers.bridge.records import Record
from schemas.runtime.linger import Linger
from schemas.topics import KafkaTopic

SIZE = 100 + RECORD_OVERHEAD


def record(number: int, size: int = 100, topic: KafkaTopic = KafkaTopic.FRAMES, key: bytes = b"hall/door") -> Record:
    return Record(topic, key, bytes([number]) * size, [], None, "pointillist/v1/hall/door/frame", "frame")


def put(lane: Lane, number: int, size: int = 100) -> None:
    entry = record(number, size)
    lane.put((entry, None), size_of(entry))


def patient(linger_s: float) -> Linger:
    return Linger(linger_s, adapts=False)


def taken(lane: Lane) -> list[int]:
    return [entry.value[0] for entry, _ in lane.take()]


async def test_a_lane_is_due_when_its_first_record_has_lingered() -> None:
    lane = Lane(KafkaTopic.FRAMES, 3, patient(0.2), 10 * SIZE)
    assert (lane.topic, lane.partition, lane.sent_at) == (KafkaTopic.FRAMES, 3, None)
    lane.hurry()
    assert not lane.due.is_set()
    began = time.monotonic()
    put(lane, 1)
    assert began <= lane.first_at <= time.monotonic()
    first_at = lane.first_at
    await asyncio.sleep(0.02)
    put(lane, 2)
    assert lane.first_at == first_at
    assert not lane.due.is_set()
    await asyncio.wait_for(lane.due.wait(), 2)
    assert time.monotonic() - began >= 0.195
    assert taken(lane) == [1, 2]
    assert not lane.due.is_set()
    assert taken(lane) == []


async def test_a_record_waits_for_no_others_while_batches_take_little_of_the_time() -> None:
    linger = Linger(60.0)
    lane = Lane(KafkaTopic.FRAMES, 0, linger, 10 * SIZE)
    put(lane, 1)
    assert lane.due.is_set()
    assert taken(lane) == [1]
    linger.begin(time.monotonic() - 60)  # a batch has been on its way for a minute
    put(lane, 2)
    assert not lane.due.is_set()
    lane.hurry()
    assert taken(lane) == [2]


async def test_a_lane_is_due_at_once_when_it_is_full_or_told_to_hurry() -> None:
    lane = Lane(KafkaTopic.FRAMES, 0, patient(60.0), 3 * SIZE)
    for first in (0, 3):  # and once more when it was taken
        put(lane, first)
        put(lane, first + 1, 99)
        assert not lane.due.is_set()
        put(lane, first + 2, 100)
        assert not lane.due.is_set()  # one byte is left
        assert taken(lane) == [first, first + 1, first + 2]
    for number in range(3):
        assert not lane.due.is_set()
        put(lane, number)
    assert lane.due.is_set()
    assert taken(lane) == [0, 1, 2]
    put(lane, 3)
    assert not lane.due.is_set()
    lane.hurry()
    assert lane.due.is_set()
    assert taken(lane) == [3]


@pytest.mark.parametrize("batch_bytes", [2 * SIZE, 3 * SIZE - 1])
async def test_a_batch_holds_as_much_as_fits_and_at_least_one_record(batch_bytes: int) -> None:
    lane = Lane(KafkaTopic.FRAMES, 0, patient(60.0), batch_bytes)
    put(lane, 0, 10_000)
    for number in range(1, 6):
        put(lane, number)
    before = time.monotonic()
    assert taken(lane) == [0]
    assert lane.due.is_set()
    assert lane.first_at >= before
    assert [taken(lane) for _ in range(3)] == [[1, 2], [3, 4], [5]]
    assert not lane.due.is_set()
    put(lane, 6)
    assert not lane.due.is_set()


async def test_a_timer_of_a_batch_that_is_gone_makes_no_later_one_due() -> None:
    lane = Lane(KafkaTopic.FRAMES, 0, patient(0.03), 2 * SIZE)
    put(lane, 0)
    put(lane, 1)
    assert taken(lane) == [0, 1]
    await asyncio.sleep(0.06)
    assert not lane.due.is_set()


class StandIn:
    """A sender to three partitions that delivers when it is told."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()

    async def partitions(self, topic: str) -> list[int]:
        return [0, 1, 2]

    async def deliver(
        self,
        topic: str,
        partition: int,
        records: Sequence[Record],
        delivered: Callable[[Sequence[Record], int], None],
        **_: object,
    ) -> None:
        await self.answer.wait()
        delivered(records, 0)


def lanes(sender: StandIn) -> Lanes:
    return Lanes(
        sender,  # type: ignore[arg-type]  # a stand-in
        patient(60.0),
        2**20,
        delivered=lambda *_: None,
        refused=lambda refused, _: refused,
    )


async def test_a_key_stays_on_its_partition_and_what_waits_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "KEYS", 4)
    sender = StandIn()
    made = lanes(sender)
    running = asyncio.create_task(made.run())
    try:
        await asyncio.wait_for(made.ready.wait(), 5)
        assert made.partitions(KafkaTopic.FRAMES) == [0, 1, 2]
        assert (made.stalled_s(), made.buffered_bytes) == (0.0, 0)
        await asyncio.wait_for(made.drain(), 1)
        found: dict[bytes, set[int]] = {}
        for number in range(60):
            key = f"hall/{number % 20}".encode()
            made.put(record(number, key=key), None)
            found.setdefault(key, set()).add(made._lane_of[KafkaTopic.FRAMES, key].partition)
            assert len(made._lane_of) <= 4
        assert all(len(partitions) == 1 for partitions in found.values())
        assert set().union(*found.values()) == {0, 1, 2}
        assert made.buffered_bytes == 60 * SIZE
        draining = asyncio.create_task(made.drain())
        await asyncio.sleep(0.05)
        assert not draining.done()
        assert 0.0 < made.stalled_s() < 5.0
        sender.answer.set()
        await asyncio.wait_for(draining, 5)
        assert (made.buffered_bytes, made.stalled_s()) == (0, 0.0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
