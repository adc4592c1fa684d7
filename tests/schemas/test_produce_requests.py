"""Produce requests: grouping of batches, retries with their sequence numbers, and deadlines."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from aiokafka.errors import InvalidTopicError, KafkaConnectionError, KafkaError, NotLeaderForPartitionError
from aiokafka.structs import TopicPartition

import schemas.transport.kafka.produce_requests as module
from schemas.transport.kafka.produce_requests import ProduceRequests

ONE, TWO, FAR = TopicPartition("topic", 0), TopicPartition("topic", 1), TopicPartition("topic", 2)


class Batch(NamedTuple):
    name: str
    records: int = 1

    def record_count(self) -> int:
        return self.records


class Cluster:
    """Nodes that answer each request from a list, and by offset 0 after its end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.leaders: dict[TopicPartition, int] = {ONE: 1, TWO: 1, FAR: 2}
        self.answers: list[dict[TopicPartition, int | KafkaError] | KafkaError] = []
        self.seen: list[tuple[int, dict[TopicPartition, str]]] = []
        self.updates = 0
        self.open = asyncio.Event()
        self.open.set()
        self.client = SimpleNamespace(
            cluster=SimpleNamespace(leader_for_partition=self.leaders.get), force_metadata_update=self._update
        )
        monkeypatch.setattr(module, "stamped", self._stamped)
        monkeypatch.setattr(module, "produce", self._produce)
        monkeypatch.setattr(module, "BACKOFF_S", 0.0)

    async def _update(self) -> None:
        self.updates += 1

    async def partitions_for(self, _topic: str) -> set[int]:
        self.leaders[TWO] = 1
        return {0, 1, 2}

    def _stamped(self, producer: object, batch: Batch, sequence: int) -> str:
        assert producer is self
        return f"{batch.name}@{sequence}"

    async def _produce(
        self, producer: object, node: int, batches: dict[TopicPartition, str]
    ) -> dict[TopicPartition, Any]:
        assert producer is self
        self.seen.append((node, batches))
        await self.open.wait()
        answer = self.answers.pop(0) if self.answers else dict.fromkeys(batches, 0)
        if isinstance(answer, KafkaError):
            raise answer
        return answer


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


@pytest.fixture
async def requests(cluster: Cluster) -> ProduceRequests:
    return ProduceRequests(cluster, 60.0)


async def test_simultaneous_batches_go_to_each_node_in_one_request(cluster: Cluster, requests: ProduceRequests) -> None:
    cluster.answers = [{ONE: 5, TWO: 6}, {FAR: 7}]
    sent = (requests.send(Batch(name), place) for name, place in (("a", ONE), ("b", TWO), ("c", FAR)))
    assert await asyncio.gather(*sent) == [5, 6, 7]
    assert cluster.seen == [(1, {ONE: "a@0", TWO: "b@0"}), (2, {FAR: "c@0"})]


@pytest.mark.parametrize("temporary", [{ONE: NotLeaderForPartitionError(), TWO: 6}, KafkaConnectionError()])
async def test_a_temporarily_rejected_batch_is_resent_with_the_same_sequence_number(
    cluster: Cluster, requests: ProduceRequests, temporary: Any
) -> None:
    cluster.answers = [temporary]
    await asyncio.gather(requests.send(Batch("a", 3), ONE), requests.send(Batch("b"), TWO))
    await requests.send(Batch("c"), ONE)
    again = {ONE: "a@0"} if isinstance(temporary, dict) else {ONE: "a@0", TWO: "b@0"}
    assert [batches for _, batches in cluster.seen] == [{ONE: "a@0", TWO: "b@0"}, again, {ONE: "c@3"}]
    assert cluster.updates == 1


async def test_a_rejected_batch_raises_its_error_and_uses_no_sequence_number(
    cluster: Cluster, requests: ProduceRequests
) -> None:
    cluster.answers = [{ONE: InvalidTopicError(), TWO: 1}]
    rejected, kept = await asyncio.gather(
        requests.send(Batch("a"), ONE), requests.send(Batch("b"), TWO), return_exceptions=True
    )
    assert isinstance(rejected, InvalidTopicError)
    assert kept == 1
    await requests.send(Batch("c"), ONE)
    assert cluster.seen[-1] == (1, {ONE: "c@0"})


async def test_the_next_batch_waits_for_one_whose_caller_was_cancelled(
    cluster: Cluster, requests: ProduceRequests
) -> None:
    cluster.open.clear()
    first = asyncio.create_task(requests.send(Batch("a", 3), ONE))
    while not cluster.seen:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.create_task(requests.send(Batch("b"), ONE))
    await asyncio.sleep(0.01)
    assert len(cluster.seen) == 1
    cluster.open.set()
    assert await second == 0
    assert cluster.seen[1:] == [(1, {ONE: "b@3"})]


async def test_a_cancelled_batch_without_an_answer_forces_a_new_producer(cluster: Cluster) -> None:
    requests = ProduceRequests(cluster, 0.01)
    cluster.open.clear()
    first = asyncio.create_task(requests.send(Batch("a"), ONE))
    while not cluster.seen:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    with pytest.raises(ConnectionError, match="the producer was replaced"):
        await requests.send(Batch("b"), ONE)
    await requests.close(0.0)


async def test_a_partition_missing_in_the_answer_is_an_error(cluster: Cluster, requests: ProduceRequests) -> None:
    cluster.answers = [{}]
    with pytest.raises(KafkaError, match="topic-0: expected an answer"):
        await requests.send(Batch("a"), ONE)


async def test_an_unknown_leader_is_requested(cluster: Cluster, requests: ProduceRequests) -> None:
    del cluster.leaders[TWO]
    assert await requests.send(Batch("a"), TWO) == 0
    assert cluster.updates == 0


async def test_an_unexpected_exception_ends_the_wait(
    cluster: Cluster, requests: ProduceRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> Any:
        raise ValueError("defect")

    monkeypatch.setattr(module, "produce", broken)
    with pytest.raises(ValueError, match="defect"):
        await requests.send(Batch("a"), ONE)


async def test_a_replaced_producer_ends_all_waits_and_rejects_new_batches(
    cluster: Cluster, requests: ProduceRequests
) -> None:
    cluster.open.clear()
    waiting = asyncio.create_task(requests.send(Batch("a"), ONE))
    while not cluster.seen:
        await asyncio.sleep(0)
    requests.abort()
    for late in (waiting, requests.send(Batch("b"), ONE)):
        with pytest.raises(ConnectionError, match="the producer was replaced"):
            await late
    await requests.close(60.0)


async def test_closing_waits_for_the_answers(cluster: Cluster, requests: ProduceRequests) -> None:
    cluster.open.clear()
    waiting = asyncio.create_task(requests.send(Batch("a"), ONE))
    while not cluster.seen:
        await asyncio.sleep(0)
    ending = asyncio.create_task(requests.close(60.0))
    await asyncio.sleep(0)
    cluster.open.set()
    await ending
    assert await waiting == 0


async def test_each_wait_ends_at_its_own_deadline(cluster: Cluster) -> None:
    requests = ProduceRequests(cluster, 0.01)
    cluster.open.clear()
    for place in (ONE, TWO):
        with pytest.raises(TimeoutError, match=rf"{place.topic}-{place.partition}: expected an acknowledgement"):
            await requests.send(Batch("a"), place)
    await requests.close(0.0)


async def test_a_later_batch_has_a_later_deadline(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    # The test moves the clock of the deadlines; only the timer of the first one is real.
    now_s = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now_s))
    requests = ProduceRequests(cluster, 0.05)
    cluster.open.clear()
    first = asyncio.create_task(requests.send(Batch("a"), ONE))
    await asyncio.sleep(0)
    now_s += 0.04
    second = asyncio.create_task(requests.send(Batch("b"), TWO))
    await asyncio.sleep(0)
    now_s += 0.01
    with pytest.raises(TimeoutError, match=r"topic-0: expected an acknowledgement within 0\.05 s"):
        await first
    assert not second.done()
    cluster.open.set()
    assert await second == 0
    await requests.close(0.0)
