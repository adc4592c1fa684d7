"""Records on their way to Kafka: one lane per partition, one batch of each in flight, retried until acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from producers.bridge.mqtt.acknowledgements import Ticket
from producers.bridge.records import Record, stamp_records
from schemas.runtime import trace
from schemas.runtime.linger import Linger
from schemas.topics import KafkaTopic
from schemas.transport.kafka.sender import Sender, partition_of

Entry: TypeAlias = tuple[Record, Ticket | None]

TOPICS: Final = (KafkaTopic.FRAMES, KafkaTopic.EVENTS, KafkaTopic.DEAD_LETTERS)
RECORD_OVERHEAD: Final = 512
"""Bytes that a buffered record costs besides its value; it bounds the number of small ones."""
GATHER_S: Final = 0.1
"""Longest linger during which messages are left in the socket: a longer one would look like a hung connection."""
KEYS: Final = 16_384
"""Maximum number of keys whose lane is cached."""


class Lane:
    """The queue of one partition."""

    def __init__(
        self,
        topic: KafkaTopic,
        partition: int,
        linger: Linger,
        batch_bytes: int,
        on_wait: Callable[[float], None],
    ) -> None:
        """`on_wait` gets the seconds for which a first record lingers; `end_linger` must be called after them."""
        self.topic = topic
        self.partition = partition
        self.due = asyncio.Event()
        self.first_at = 0.0
        self.sent_at: float | None = None
        """Monotonic time at which the batch in flight was first sent."""
        self._entries: list[Entry] = []
        self._bytes = 0
        self._linger = linger
        self._batch_bytes = batch_bytes
        self._on_wait = on_wait

    def put(self, entry: Entry, size: int) -> None:
        """Add a record of `size` bytes; the lane is due when it is full or its first record has lingered."""
        if not self._entries:
            self.first_at = time.monotonic()
            linger_s = self._linger.seconds(self.first_at)
            if linger_s:
                self._on_wait(linger_s)
            else:
                self.due.set()
        self._entries.append(entry)
        self._bytes += size
        if self._bytes >= self._batch_bytes:
            self.due.set()

    def end_linger(self) -> None:
        """End the linger: the waiting records are due now."""
        if self._entries:
            self.due.set()

    def next_batch(self) -> list[Entry]:
        """Return the next batch: all records, or as many as fit, at least one. Call it only while the lane is due."""
        self.due.clear()
        entries = self._entries
        if self._bytes <= self._batch_bytes:
            self._entries, self._bytes = [], 0
            return entries
        count = taken = 0
        for entry in entries:
            size = size_of(entry[0])
            if count and taken + size > self._batch_bytes:
                break
            count += 1
            taken += size
        self._entries, self._bytes = entries[count:], self._bytes - taken
        if self._entries:
            self.first_at = time.monotonic()
            self.due.set()
        return entries[:count]


def size_of(record: Record) -> int:
    """Return the bytes that a record counts for, in the buffer and in the lag of the processors."""
    return len(record.value) + RECORD_OVERHEAD


class Lanes:
    """All lanes. `delivered` is called with each batch that Kafka has acknowledged by all in-sync replicas.

    A batch that fails is retried without limit. A record that is alone in its batch and too large for Kafka is replaced
    by the result of `refused`. The order within a partition is kept unless a batch fails.
    """

    def __init__(
        self,
        sender: Sender,
        linger: Linger,
        batch_bytes: int,
        delivered: Callable[[Lane, list[Entry], int, int, float], None],
        refused: Callable[[Record, str], Record],
        before_flush: Callable[[], None] = lambda: None,
    ) -> None:
        """`linger` returns the seconds for which a batch's first record waits for others.

        `delivered` is called with the lane, the batch with its first offset in Kafka (negative when unknown), its size
        in bytes by `size_of`, and the seconds since its first record arrived. `before_flush` is called at the end of a
        linger, and may still call `put`.
        """
        self.buffered_bytes = 0
        self.ready = asyncio.Event()
        self._sender = sender
        self._linger = linger
        self._batch_bytes = batch_bytes
        self._delivered = delivered
        self._refused = refused
        self._lanes: dict[KafkaTopic, list[Lane]] = {}
        self._lane_of: dict[tuple[KafkaTopic, bytes], Lane] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._before_flush = before_flush
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        """When the timer ends, by the loop's clock."""

    async def run(self) -> None:
        """Fetch the partitions, then serve all lanes until cancelled."""
        for topic in TOPICS:
            partitions = await self._sender.partitions(topic.value)
            self._lanes[topic] = [Lane(topic, p, self._linger, self._batch_bytes, self._wait) for p in partitions]
        async with asyncio.TaskGroup() as group:
            for lanes in self._lanes.values():
                for lane in lanes:
                    group.create_task(self._serve(lane))
            self.ready.set()

    def put(self, record: Record, ticket: Ticket | None) -> None:
        """Add a record without waiting; the caller bounds `buffered_bytes`."""
        lane = self._lane_of.get((record.topic, record.key)) or self._find_lane(record)
        size = len(record.value) + RECORD_OVERHEAD
        if not self.buffered_bytes:
            self._empty.clear()
        self.buffered_bytes += size
        self._linger.arrive(time.monotonic())
        lane.put((record, ticket), size)

    def partitions(self, topic: KafkaTopic) -> list[int]:
        """Return the partitions of a topic. Call it once `ready` is set."""
        return [lane.partition for lane in self._lanes[topic]]

    async def drain(self) -> None:
        """Wait until Kafka has acknowledged all records."""
        self._end_lingers()
        await self._empty.wait()

    @property
    def is_lingering(self) -> bool:
        """Whether nothing is sent before `before_flush` is called, within `GATHER_S`."""
        return self._timer is not None and self._due_s - self._loop.time() <= GATHER_S

    def _wait(self, seconds: float) -> None:
        due_s = self._loop.time() + seconds
        if self._timer is not None:
            if self._due_s <= due_s:
                return
            self._timer.cancel()
        self._due_s = due_s
        self._timer = self._loop.call_at(due_s, self._flush)

    def _flush(self) -> None:
        # While the timer is set, an arriving record starts no linger.
        try:
            self._before_flush()
        finally:
            self._timer = None
            self._end_lingers()

    def _end_lingers(self) -> None:
        """Send the batches of all lanes: the producer puts those of one node into one request."""
        for lanes in self._lanes.values():
            for lane in lanes:
                lane.end_linger()

    def stalled_s(self) -> float:
        """Return the seconds for which the oldest batch in flight has waited for its acknowledgement; 0 without one."""
        sent = [lane.sent_at for lanes in self._lanes.values() for lane in lanes if lane.sent_at is not None]
        return time.monotonic() - min(sent) if sent else 0.0

    def _find_lane(self, record: Record) -> Lane:
        lanes = self._lanes[record.topic]
        lane = lanes[partition_of(record.key, range(len(lanes)))]
        if len(self._lane_of) >= KEYS:
            self._lane_of.clear()
        self._lane_of[record.topic, record.key] = lane
        return lane

    async def _serve(self, lane: Lane) -> None:
        while True:
            await lane.due.wait()
            first_at = lane.first_at
            entries = lane.next_batch()
            lane.sent_at = time.monotonic()
            self._linger.begin(lane.sent_at)
            if trace.on():
                stamp_records("sent", [record for record, _ in entries])
            await self._deliver(lane, entries, first_at)
            self._linger.end(time.monotonic())
            lane.sent_at = None

    async def _deliver(self, lane: Lane, entries: list[Entry], first_at: float) -> None:
        at = 0

        def delivered(records: Sequence[Record], offset: int) -> None:
            nonlocal at
            sent = entries[at : at + len(records)]
            at += len(records)
            self._delivered(lane, sent, offset, self._release(sent), time.monotonic() - first_at)

        def refused(record: Record, why: str) -> None:
            nonlocal at
            entry = entries[at]
            at += 1
            self.put(self._refused(record, why), entry[1])
            self._release([entry])

        records = [record for record, _ in entries]
        await self._sender.deliver(lane.topic.value, lane.partition, records, delivered, refused=refused)

    def _release(self, entries: list[Entry]) -> int:
        size = sum(len(record.value) for record, _ in entries) + len(entries) * RECORD_OVERHEAD
        self.buffered_bytes -= size
        if not self.buffered_bytes:
            self._empty.set()
        return size
