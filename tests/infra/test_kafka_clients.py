from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import aiokafka.client
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from infra.local.kafka import Kafka
from schemas.transport.access import kafka_options
from schemas.transport.kafka import clients
from schemas.transport.kafka.clients import abort_producer, close_clients, start_client, stop_producer
from tests.infra.secure_kafka import KafkaWithPasswords


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the connections that aiokafka opens during the test."""
    opened: list[Any] = []
    create = aiokafka.client.create_conn

    async def collect(*args: Any, **options: Any) -> Any:
        opened.append(await create(*args, **options))
        return opened[-1]

    monkeypatch.setattr(aiokafka.client, "create_conn", collect)
    return opened


@pytest.mark.brokers
@pytest.mark.parametrize("client", [AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient])
async def test_a_cancelled_start_leaves_no_connection(
    client: Any, kafka: Kafka, connections: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await cancel_start(client(bootstrap_servers=kafka.bootstrap), monkeypatch)
    assert [connection.connected() for connection in connections] == [False]


@pytest.mark.brokers
def test_a_cancelled_start_by_tls_leaves_no_connection_when_the_loop_ends(
    secure_kafka: KafkaWithPasswords, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start_and_abandon() -> None:
        await cancel_start(AIOKafkaAdminClient(**kafka_options(secure_kafka.access("health"))), monkeypatch)

    asyncio.run(start_and_abandon())
    gc.collect()  # an open connection would raise a ResourceWarning, which is an error


async def cancel_start(hanging: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a client whose first request is never answered, and cancel the start."""
    requested = asyncio.Event()
    send = aiokafka.conn.AIOKafkaConnection.send

    def unanswered(connection: Any, request: Any, *options: Any) -> Any:
        if type(request).__name__ != "MetadataRequest":
            return send(connection, request, *options)
        requested.set()
        return asyncio.Event().wait()

    monkeypatch.setattr(aiokafka.conn.AIOKafkaConnection, "send", unanswered)
    starting = asyncio.create_task(start_client(hanging))
    await asyncio.wait_for(requested.wait(), 30)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await (hanging.close() if isinstance(hanging, AIOKafkaAdminClient) else hanging.stop())


@pytest.mark.brokers
async def test_a_producer_that_cannot_deliver_is_stopped_within_the_deadline(
    kafka: Kafka, kafka_topics: Callable[[], Awaitable[str]], connections: list[Any]
) -> None:
    topic = await kafka_topics()
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True)
    try:
        await start_client(producer)
        await producer.send_and_wait(topic, b"")
        kafka.pause()
        undelivered = await producer.send(topic, b"")
    finally:
        await asyncio.wait_for(stop_producer(producer, 0.2), 30)
    assert not undelivered.done()
    assert not any(connection.connected() for connection in connections)
    assert producer._sender.sender_task.done()


async def test_a_cancellation_during_the_stop_of_a_client_is_raised_even_if_the_client_swallows_it() -> None:
    stopping, continued = asyncio.Event(), []

    async def swallow() -> None:
        stopping.set()
        with contextlib.suppress(asyncio.CancelledError):  # as aiokafka's clients do
            await asyncio.Event().wait()

    async def follow() -> None:
        await close_clients(swallow, deadline_s=60.0)
        continued.append("continues")

    task = asyncio.create_task(follow())
    await stopping.wait()
    task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()
    assert not continued


async def test_a_client_that_fails_or_hangs_at_its_stop_does_not_keep_the_others_open() -> None:
    stopped = []

    async def breaks() -> None:
        raise AttributeError("a controller that is not known")

    async def stops() -> None:
        stopped.append("the third")

    await close_clients(breaks, asyncio.Event().wait, stops, deadline_s=0.01)  # type: ignore[arg-type]  # waits for ever
    assert stopped == ["the third"]


async def test_a_cancellation_inside_a_client_does_not_cancel_the_caller() -> None:
    stopped = []

    async def raises_cancellation() -> None:
        own = asyncio.create_task(asyncio.Event().wait())
        own.cancel()
        await own

    async def stops() -> None:
        stopped.append("the second")

    assert not await close_clients(raises_cancellation, stops, deadline_s=10)
    assert stopped == ["the second"]


class StubbornProducer:
    """A stand-in for a producer whose sender task ends only at a second cancellation, as aiokafka's does."""

    def __init__(self, fault: Exception | None) -> None:
        self.fault = fault
        self.open = True
        self.cancelled = 0
        self.connections = [SimpleNamespace(close=self._close)]
        self.client = SimpleNamespace(close=self.close, _conns={1: self.connections[0]})
        self._sender = SimpleNamespace(sender_task=asyncio.create_task(self._send()))
        self._closed = False

    async def _send(self) -> None:
        while self.cancelled < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1

    def _close(self) -> None:
        self.open = False

    async def close(self) -> None:
        if self.fault is not None:
            raise self.fault
        await asyncio.Event().wait()


@pytest.mark.parametrize("fault", [None, OSError("connection lost")])
async def test_an_aborted_producer_leaves_no_task_and_no_connection(
    fault: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "_AGAIN_S", 0.01)
    producer = StubbornProducer(fault)
    await asyncio.sleep(0)
    await asyncio.wait_for(abort_producer(producer, 0.01), 20)
    assert producer._sender.sender_task.done()
    assert not producer.open
    assert producer._closed


async def test_a_producer_that_never_started_is_aborted() -> None:
    producer = StubbornProducer(OSError("connection lost"))
    task, producer._sender.sender_task = producer._sender.sender_task, None
    await asyncio.wait_for(abort_producer(producer, 0.01), 20)
    assert not producer.open
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)


async def test_a_stop_that_hangs_becomes_an_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_AGAIN_S", 0.01)
    producer = StubbornProducer(None)
    producer.stop = asyncio.Event().wait  # type: ignore[attr-defined]
    await asyncio.wait_for(stop_producer(producer, 0.01), 20)
    assert producer._sender.sender_task.done()
    assert not producer.open
