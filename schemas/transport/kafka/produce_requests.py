"""Produce requests: the batches that are due at one moment go to each node in one request.

aiokafka's own way of a batch leads through a queue, a background task and several futures. With small batches that
costs more than the request. Here a batch has one future, and a node's batches share one task.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from schemas.transport.kafka.internals import produce, stamped

BACKOFF_S: Final = 0.1
"""Delay before a batch is sent again to a node that has rejected it for now."""
_SEQUENCES: Final = 2**31
"""A batch's sequence number is below this; the next one after the last is 0."""


@dataclass(eq=False)
class _Batch:
    place: TopicPartition
    data: bytes
    records: int
    sent_s: float
    offset: asyncio.Future[int]


class ProduceRequests:
    """Batches on their way by one producer. The caller sends one batch of a partition at a time.

    Kafka's passing refusals are retried with the same sequence number, so that Kafka drops a batch which it had.
    """

    def __init__(self, producer: AIOKafkaProducer, deadline_s: float) -> None:
        """A batch takes at most `deadline_s` seconds."""
        self._producer = producer
        self._deadline_s = deadline_s
        self._loop = asyncio.get_running_loop()
        self._sequences: defaultdict[TopicPartition, int] = defaultdict(int)
        self._due: list[_Batch] = []
        self._under_way: dict[_Batch, None] = {}
        """In the order of their deadlines."""
        self._abandoned: dict[TopicPartition, asyncio.Future[int]] = {}
        """The offset of a partition's last batch if its caller was cancelled."""
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def send(self, batch: Any, place: TopicPartition) -> int:
        """Send a closed batch; return its first offset, negative if Kafka does not know it.

        Raises KafkaError, TimeoutError after the deadline, ConnectionError if the producer was replaced or has to be. A
        batch whose caller was cancelled stays on its way: the partition's next batch waits for its answer, without
        which its sequence number is not known.
        """
        if place in self._abandoned:
            await asyncio.wait([self._abandoned[place]])
            if self._abandoned.pop(place).exception() is not None:
                raise _replaced(place)
        if self._closed:
            raise _replaced(place)
        data = stamped(self._producer, batch, self._sequences[place])
        made = _Batch(place, data, batch.record_count(), time.monotonic(), self._loop.create_future())
        self._under_way[made] = None
        made.offset.add_done_callback(lambda found: self._ended(made, found))
        if self._expiry is None:
            self._expiry = self._loop.call_later(self._deadline_s, self._expire)
        self._enqueue([made])
        try:
            return await asyncio.shield(made.offset)
        except asyncio.CancelledError:
            self._abandoned[place] = made.offset
            raise

    def _ended(self, batch: _Batch, offset: asyncio.Future[int]) -> None:
        self._under_way.pop(batch, None)
        offset.exception()  # retrieved, also if nobody waits for it any more

    def abort(self) -> None:
        """End the waits of all batches by ConnectionError, and accept no more."""
        self._closed = True
        for batch in self._under_way:
            if not batch.offset.done():
                batch.offset.set_exception(_replaced(batch.place))

    async def close(self, deadline_s: float) -> None:
        """Wait for the answers for `deadline_s` seconds at most, then abort."""
        if self._tasks and not self._closed:
            await asyncio.wait(self._tasks, timeout=deadline_s)
        self.abort()
        if self._expiry is not None:
            self._expiry.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=deadline_s)

    def _enqueue(self, batches: Sequence[_Batch]) -> None:
        if not self._due:
            # After everything that runs now: batches of other partitions may join.
            self._loop.call_soon(self._begin)
        self._due += batches

    def _begin(self) -> None:
        due, self._due = self._due, []
        nodes: defaultdict[int | None, list[_Batch]] = defaultdict(list)
        for batch in due:
            if not batch.offset.done():
                nodes[self._leader(batch.place)].append(batch)
        for node, batches in nodes.items():
            task = self._loop.create_task(self._deliver(node, batches), name="kafka-produce")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _leader(self, place: TopicPartition) -> int | None:
        """Return the node that accepts a partition's batches; None if it is unknown."""
        node: int | None = self._producer.client.cluster.leader_for_partition(place)
        return None if node is None or node < 0 else node

    async def _deliver(self, node: int | None, batches: list[_Batch]) -> None:
        try:
            if node is None:
                again, stale = await self._learn(batches), True
            else:
                again, stale = await self._request(node, batches)
            if again:
                if stale:
                    await self._producer.client.force_metadata_update()
                await asyncio.sleep(BACKOFF_S)
                self._enqueue(again)
        except Exception as error:
            for batch in batches:
                _fail(batch, error)

    async def _learn(self, batches: list[_Batch]) -> list[_Batch]:
        """Request the metadata of unknown topics; return the batches to send again."""
        for topic in {batch.place.topic for batch in batches}:
            await self._producer.partitions_for(topic)
        known = [batch for batch in batches if self._leader(batch.place) is not None]
        self._enqueue(known)
        return [batch for batch in batches if batch not in known]

    async def _request(self, node: int, batches: list[_Batch]) -> tuple[list[_Batch], bool]:
        """Return the batches to send again, and whether the metadata may be stale."""
        answers: dict[TopicPartition, int | KafkaError]
        try:
            answers = await produce(self._producer, node, {batch.place: batch.data for batch in batches})
        except KafkaError as error:
            answers = {batch.place: error for batch in batches}
        again, stale = [], False
        for batch in batches:
            answer = answers.get(batch.place)
            if isinstance(answer, int):
                # A rejected batch uses no sequence number.
                self._sequences[batch.place] = (self._sequences[batch.place] + batch.records) % _SEQUENCES
                if not batch.offset.done():
                    batch.offset.set_result(answer)
            elif answer is None:
                _fail(batch, KafkaError(f"{_name(batch.place)}: expected an answer in Kafka's response, got none"))
            elif answer.retriable:
                again.append(batch)
                stale = stale or bool(getattr(answer, "invalid_metadata", False))
            else:
                _fail(batch, answer)
        return again, stale

    def _expire(self) -> None:
        self._expiry = None
        now_s = time.monotonic()
        for batch in self._under_way:
            left_s = batch.sent_s + self._deadline_s - now_s
            if left_s > 0:
                self._expiry = self._loop.call_later(left_s, self._expire)
                return
            name = _name(batch.place)
            _fail(batch, TimeoutError(f"{name}: expected an acknowledgement within {self._deadline_s:g} s"))


def _fail(batch: _Batch, error: Exception) -> None:
    if not batch.offset.done():
        batch.offset.set_exception(error)


def _name(place: TopicPartition) -> str:
    return f"{place.topic}-{place.partition}"


def _replaced(place: TopicPartition) -> ConnectionError:
    return ConnectionError(f"{_name(place)}: the producer was replaced")
