"""A stand-in for Kafka inside the test's process: it records requests and gives the answers that a test chooses.

The tests against a real Kafka check the bridge's contract with it. Here a test controls each answer and its time.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from aiokafka.errors import KafkaError
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.structs import TopicPartition

import schemas.transport.kafka.admin as admin_module
import schemas.transport.kafka.produce_requests as produce_module
import schemas.transport.kafka.producers as producers_module
import schemas.transport.kafka.reader as reader_module
from schemas.topics import RECORDED_GROUP, KafkaTopic
from schemas.transport.kafka.damage import STALL_CHECK_S


class Sent(NamedTuple):
    """A record in the log."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp: int


class Event(NamedTuple):
    """A record as a consumer returns it."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    offset: int = 0


class KafkaStandIn:
    """A Kafka with its log, its committed offsets, and the clients made for it with their options."""

    def __init__(self, partitions: int = 2) -> None:
        self.log: dict[tuple[str, int], list[Sent]] = defaultdict(list)
        self.partitions = set(range(partitions))
        self.committed: dict[int, int] = {}
        self.firsts: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.recorder_commits: dict[int, tuple[int, str]] = {}
        """The recorders' commits in the topic of verdicts: offset and note by partition."""
        self.recorder_errors: deque[Exception] = deque()
        """Exceptions of the next requests for the recorders' commits."""
        self.verdict_ends: dict[int, int] = {}
        self.other_commits: dict[KafkaTopic, dict[int, tuple[int, str]]] = {}
        """The recorders' commits in other topics."""
        self.other_ends: dict[KafkaTopic, dict[int, int]] = {}
        self.events: asyncio.Queue[list[Event] | Exception] = asyncio.Queue()
        self.start_error: Exception | None = None
        """The exception of every start of a client."""
        self.failures: deque[Exception] = deque()
        """Exceptions of the next starts of consumers and of the next requests for committed offsets."""
        self.reachable = asyncio.Event()
        """Starts and requests for committed offsets complete while this is set."""
        self.reachable.set()
        self.closing = asyncio.Event()
        """Stops complete while this is set."""
        self.closing.set()
        self.partition_errors: deque[Exception] = deque()
        """Exceptions of the next requests for partitions."""
        self.batch_errors: deque[Exception] = deque()
        """Errors of the next batches."""
        self.answers = asyncio.Event()
        """Batches are acknowledged while this is set."""
        self.answers.set()
        self.room = 2**30
        self.batches: list[tuple[str, int, list[Sent]]] = []
        self.producers: list[Producer] = []
        self.consumers: list[Consumer] = []
        self.admins: list[Admin] = []
        self.requests: list[tuple[object, ...]] = []

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace aiokafka's clients by stand-ins."""

        def producer(**options: Any) -> Producer:
            self.producers.append(Producer(self, options))
            return self.producers[-1]

        def consumer(**options: Any) -> Consumer:
            self.consumers.append(Consumer(self, options))
            return self.consumers[-1]

        def admin(**options: Any) -> Admin:
            self.admins.append(Admin(self, options))
            return self.admins[-1]

        monkeypatch.setattr(producers_module, "AIOKafkaProducer", producer)
        monkeypatch.setattr(produce_module, "stamped", lambda _producer, batch, _sequence: batch)
        monkeypatch.setattr(produce_module, "produce", produce)
        monkeypatch.setattr(reader_module, "AIOKafkaConsumer", consumer)
        monkeypatch.setattr(admin_module, "AIOKafkaAdminClient", admin)

    def acknowledge_once(self) -> None:
        """Acknowledge the waiting batches, and no later ones."""
        self.answers.set()
        self.answers.clear()

    def sent(self, topic: KafkaTopic) -> list[Sent]:
        """Return all records of a topic, partition after partition."""
        return [record for part in sorted(self.partitions) for record in self.log[topic.value, part]]


class _Client:
    def __init__(self, kafka: KafkaStandIn, options: dict[str, Any]) -> None:
        self.kafka = kafka
        self.options = options
        self.running = False
        self.ended = 0

    async def start(self) -> None:
        if self.kafka.start_error is not None:
            raise self.kafka.start_error
        await self.kafka.reachable.wait()
        self.running = True

    async def stop(self) -> None:
        self.running = False
        self.ended += 1
        await self.kafka.closing.wait()


class Producer(_Client):
    """The part of AIOKafkaProducer that `Sender` uses."""

    def __init__(self, kafka: KafkaStandIn, options: dict[str, Any]) -> None:
        super().__init__(kafka, options)
        self._sender = SimpleNamespace(sender_task=None)
        cluster = SimpleNamespace(leader_for_partition=lambda _: 1)
        self.client = SimpleNamespace(close=self.stop, _conns={}, cluster=cluster)
        self._closed = False

    async def partitions_for(self, topic: str) -> set[int]:
        self.kafka.requests.append(("partitions", topic))
        if self.kafka.partition_errors:
            raise self.kafka.partition_errors.popleft()
        return self.kafka.partitions

    def create_batch(self) -> Batch:
        return Batch(self.kafka.room)


async def produce(producer: Producer, _node: int, batches: dict[TopicPartition, Batch]) -> dict[TopicPartition, object]:
    """Return the offset or the error of each batch."""
    kafka = producer.kafka
    answers: dict[TopicPartition, object] = {}
    for place, batch in batches.items():
        assert batch.closed
        kafka.batches.append((place.topic, place.partition, batch.records))
        if kafka.batch_errors:
            answers[place] = kafka.batch_errors.popleft()
    await kafka.answers.wait()
    for answer in answers.values():
        if isinstance(answer, Exception) and not isinstance(answer, KafkaError):
            raise answer
    for place in batches.keys() - answers.keys():
        log = kafka.log[place]
        answers[place] = len(log)
        log.extend(batches[place].records)
    return answers


class Batch:
    """A batch with room for this many bytes of values."""

    def __init__(self, room: int) -> None:
        self.records: list[Sent] = []
        self.closed = False
        self._room = room

    def append(self, *, timestamp: int, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> object | None:
        assert type(timestamp) is int  # aiokafka packs it as an integer
        if len(value) > self._room:
            return None
        self._room -= len(value)
        self.records.append(Sent(key, value, headers, timestamp))
        return object()

    def close(self) -> None:
        self.closed = True

    def record_count(self) -> int:
        return len(self.records)


class Consumer(_Client):
    """The part of AIOKafkaConsumer that `Backlog` and `Requests` use."""

    def __init__(self, kafka: KafkaStandIn, options: dict[str, Any]) -> None:
        super().__init__(kafka, options)
        self.topics: list[str] = []
        self._fetcher = None
        self._client = SimpleNamespace(close=self.stop)

    def subscribe(self, topics: list[str], listener: object) -> None:
        assert listener is None
        self.topics = topics

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(topic, partition) for topic in self.topics for partition in self.kafka.partitions}

    async def position(self, place: TopicPartition) -> int:
        return 0

    async def start(self) -> None:
        if self.kafka.failures:
            raise self.kafka.failures.popleft()
        await super().start()

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: self.kafka.firsts.get(place.partition, 0) for place in places}

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        ends = {KafkaTopic.FRAMES: self.kafka.ends, KafkaTopic.VERDICTS: self.kafka.verdict_ends}
        ends |= self.kafka.other_ends
        return {
            place: ends.get(KafkaTopic(place.topic), {}).get(place.partition, len(self.kafka.log[place]))
            for place in places
        }

    async def getmany(self, *, timeout_ms: int, max_records: int | None) -> dict[TopicPartition, list[Event]]:
        assert 0 < timeout_ms <= 1000 * STALL_CHECK_S  # a longer wait would hide a stalled partition
        found = await self.kafka.events.get()
        if isinstance(found, Exception):
            raise found
        return {TopicPartition(KafkaTopic.EVENTS.value, 0): found}


class Admin(_Client):
    """The part of AIOKafkaAdminClient that `Backlog` uses."""

    async def find_coordinator(self, group: str) -> int:
        self.kafka.requests.append(("coordinator", group))
        return 42

    async def _send_request(self, request: OffsetFetchRequest, node: int) -> SimpleNamespace:
        assert node == 42
        if request._consumer_group == RECORDED_GROUP:
            if self.kafka.recorder_errors:
                raise self.kafka.recorder_errors.popleft()
            commits = {KafkaTopic.VERDICTS: self.kafka.recorder_commits, **self.kafka.other_commits}
            topics = [
                (topic.value, [(partition, offset, note, 0) for partition, (offset, note) in found.items()])
                for topic, found in commits.items()
            ]
            return SimpleNamespace(error_code=0, topics=topics)
        if self.kafka.failures:
            raise self.kafka.failures.popleft()
        await self.kafka.reachable.wait()
        self.kafka.requests.append(("offsets", request._consumer_group))
        partitions = [(partition, offset, "", 0) for partition, offset in self.kafka.committed.items()]
        return SimpleNamespace(error_code=0, topics=[(KafkaTopic.FRAMES.value, partitions)])

    async def close(self) -> None:
        await self.stop()
