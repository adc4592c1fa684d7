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
from schemas.transport.kafka.clients import end, leave, start, stop
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
    starting = asyncio.create_task(start(hanging))
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
        await start(producer)
        await producer.send_and_wait(topic, b"")
        kafka.pause()
        undelivered = await producer.send(topic, b"")
    finally:
        await asyncio.wait_for(stop(producer, 0.2), 30)
    assert not undelivered.done()
    assert not any(connection.connected() for connection in made)
    assert producer._sender.sender_task.done()


async def test_a_connection_that_a_producer_makes_while_it_ends_is_closed() -> None:
    closed: list[str] = []
    connections: dict[str, Any] = {}
    waiting = asyncio.Event()

    async def close() -> None:
        for connection in connections.values():
            connection.close()

    async def sends() -> None:
        try:
            await waiting.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            connections["late"] = SimpleNamespace(close=lambda: closed.append("late"))

    sender = asyncio.create_task(sends())
    await asyncio.sleep(0)
    producer = SimpleNamespace(
        client=SimpleNamespace(close=close, _conns=connections), _sender=SimpleNamespace(sender_task=sender)
    )
    await end(producer, 1.0)
    assert closed == ["late"]
    assert sender.done()


async def test_a_task_that_is_cancelled_while_a_client_stops_ends_though_the_client_swallows_it() -> None:
    stopping, left = asyncio.Event(), []

    async def swallow() -> None:
        stopping.set()
        with contextlib.suppress(asyncio.CancelledError):  # as aiokafka's clients do
            await asyncio.Event().wait()

    async def follow() -> None:
        await leave(swallow, deadline_s=60.0)
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

    await leave(breaks, asyncio.Event().wait, stops, deadline_s=0.01)  # type: ignore[arg-type]  # waits for ever
    assert stopped == ["the third"]


class Refused:
    """A client whose start fails while it holds the connection that asks for the first metadata."""

    def __init__(self, *, asked: bool) -> None:
        self.asked = asked
        self.closed: list[str] = []

    async def start(self) -> None:
        await (self._bootstrap() if self.asked else self._resolve())

    async def _bootstrap(self) -> None:
        bootstrap_conn = SimpleNamespace(close=lambda: self.closed.append("bootstrap"), _writer=None)
        raise ConnectionError(f"asked over {bootstrap_conn}")

    async def _resolve(self) -> None:
        bootstrap_conn = None
        raise ConnectionError(f"asked over {bootstrap_conn}")


@pytest.mark.parametrize(("asked", "closed"), [(True, ["bootstrap"]), (False, [])])
async def test_a_start_that_fails_closes_the_connection_it_asked_over_if_there_was_one(
    asked: bool, closed: list[str]
) -> None:
    client = Refused(asked=asked)
    with pytest.raises(ConnectionError, match="asked over"):
        await start(client)
    assert client.closed == closed


class Sending:
    """A producer as `end` finds it: a task that sends, a connection, and a stop that waits for `delivered`."""

    def __init__(self, *, closes: Callable[[], Awaitable[None]]) -> None:
        self.done: list[str] = []
        self.delivered = asyncio.Event()
        self.closes = closes
        self.client = SimpleNamespace(
            close=self._close, _conns={1: SimpleNamespace(close=lambda: self.done.append("connection"))}
        )
        self._sender = SimpleNamespace(sender_task=asyncio.create_task(self._send()))
        self._closed = False

    async def _send(self) -> None:
        for _ in range(2):  # the first cancel ends the waiting for requests in flight, the second those
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        self.done.append("sender")

    async def _close(self) -> None:
        await self.closes()
        self.done.append("client")

    async def stop(self) -> None:
        await self.delivered.wait()
        self.done.append("stopped")


async def at_once() -> None:
    """Close without a wait."""


async def in_vain() -> None:
    """Hang as a connection to a dead broker does."""
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("closes", "done"), [(at_once, ["client", "sender", "connection"]), (in_vain, ["sender", "connection"])]
)
async def test_a_producer_that_is_not_rid_of_its_records_is_ended_in_time(
    closes: Callable[[], Awaitable[None]], done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.transport.kafka.clients._AGAIN_S", 0.01)
    producer = Sending(closes=closes)
    await asyncio.sleep(0)
    await asyncio.wait_for(stop(producer, 0.01), 5)
    assert producer.done == done
    assert producer._closed


async def test_a_producer_that_is_rid_of_its_records_in_time_is_not_ended() -> None:
    producer = Sending(closes=at_once)
    await asyncio.sleep(0)
    producer.delivered.set()
    await stop(producer, 5.0)
    assert producer.done == ["stopped"]
    producer.client._conns.clear()
    await end(producer, 5.0)


async def test_a_producer_that_never_began_to_send_is_ended() -> None:
    producer = Sending(closes=at_once)
    producer._sender.sender_task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await producer._sender.sender_task
    producer._sender.sender_task = None
    await end(producer, 5.0)
    assert producer.done == ["client", "connection"]
    assert producer._closed


async def test_a_cancellation_inside_a_client_that_stops_is_not_the_callers() -> None:
    stopped = []

    async def lets_out() -> None:
        own = asyncio.create_task(asyncio.Event().wait())
        own.cancel()
        await own

    async def stops() -> None:
        stopped.append("the second")

    assert not await leave(lets_out, stops, deadline_s=10)
    assert stopped == ["the second"]
