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
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The connections that aiokafka has made during the test."""
    connections: list[Any] = []
    create = aiokafka.client.create_conn

    async def noted(*args: Any, **options: Any) -> Any:
        connections.append(await create(*args, **options))
        return connections[-1]

    monkeypatch.setattr(aiokafka.client, "create_conn", noted)
    return connections


@pytest.mark.brokers
@pytest.mark.parametrize("client", [AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient])
async def test_a_start_that_hangs_and_is_given_up_leaves_no_connection(
    client: Any, kafka: Kafka, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await given_up(client(bootstrap_servers=kafka.bootstrap), monkeypatch)
    assert [connection.connected() for connection in made] == [False]


@pytest.mark.brokers
def test_by_tls_too_it_leaves_none_when_the_loop_ends_at_once(
    secure_kafka: KafkaWithPasswords, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        await given_up(AIOKafkaAdminClient(**kafka_options(secure_kafka.access("health"))), monkeypatch)

    asyncio.run(ask())
    gc.collect()  # what is left open is told of as an error


async def given_up(hanging: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a client whose first question is never answered, and give it up."""
    asked = asyncio.Event()
    send = aiokafka.conn.AIOKafkaConnection.send

    def unanswered(connection: Any, request: Any, *options: Any) -> Any:
        if type(request).__name__ != "MetadataRequest":
            return send(connection, request, *options)
        asked.set()
        return asyncio.Event().wait()

    monkeypatch.setattr(aiokafka.conn.AIOKafkaConnection, "send", unanswered)
    starting = asyncio.create_task(start_client(hanging))
    await asyncio.wait_for(asked.wait(), 30)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await (hanging.close() if isinstance(hanging, AIOKafkaAdminClient) else hanging.stop())


@pytest.mark.brokers
async def test_a_producer_that_cannot_deliver_is_stopped_in_time_with_its_connections(
    kafka: Kafka, kafka_topics: Callable[[], Awaitable[str]], made: list[Any]
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
    assert not any(connection.connected() for connection in made)
    assert producer._sender.sender_task.done()


async def test_a_task_that_is_cancelled_while_a_client_stops_ends_though_the_client_swallows_it() -> None:
    stopping, left = asyncio.Event(), []

    async def swallow() -> None:
        stopping.set()
        with contextlib.suppress(asyncio.CancelledError):  # as aiokafka's clients do
            await asyncio.Event().wait()

    async def follow() -> None:
        await close_clients(swallow, deadline_s=60.0)
        left.append("and goes on")

    task = asyncio.create_task(follow())
    await stopping.wait()
    task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()
    assert not left


async def test_a_client_that_breaks_or_hangs_while_it_stops_keeps_none_from_stopping() -> None:
    stopped = []

    async def breaks() -> None:
        raise AttributeError("a controller that is not known")

    async def stops() -> None:
        stopped.append("the third")

    await close_clients(breaks, asyncio.Event().wait, stops, deadline_s=0.01)  # type: ignore[arg-type]  # waits for ever
    assert stopped == ["the third"]


async def test_a_cancellation_inside_a_client_that_stops_is_not_the_callers() -> None:
    stopped = []

    async def lets_out() -> None:
        own = asyncio.create_task(asyncio.Event().wait())
        own.cancel()
        await own

    async def stops() -> None:
        stopped.append("the second")

    assert not await close_clients(lets_out, stops, deadline_s=10)
    assert stopped == ["the second"]


class Ending:
    """A producer that waits for its requests when it is cancelled once, as aiokafka's does."""

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
async def test_an_end_leaves_no_task_and_no_connection_though_the_producer_waits_for_both(
    fault: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "_AGAIN_S", 0.01)
    producer = Ending(fault)
    await asyncio.sleep(0)
    await asyncio.wait_for(abort_producer(producer, 0.01), 20)
    assert producer._sender.sender_task.done()
    assert not producer.open
    assert producer._closed


async def test_a_producer_that_never_started_has_no_task_to_end() -> None:
    producer = Ending(OSError("connection lost"))
    task, producer._sender.sender_task = producer._sender.sender_task, None
    await asyncio.wait_for(abort_producer(producer, 0.01), 20)
    assert not producer.open
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)


async def test_a_stop_that_hangs_becomes_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_AGAIN_S", 0.01)
    producer = Ending(None)
    producer.stop = asyncio.Event().wait  # type: ignore[attr-defined]
    await asyncio.wait_for(stop_producer(producer, 0.01), 20)
    assert producer._sender.sender_task.done()
    assert not producer.open
