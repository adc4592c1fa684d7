"""The bridge's MQTT connection against a broker that says what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

import producers.bridge.mqtt.link as link_module
from producers.bridge.mqtt.client import PacketClient
from producers.bridge.mqtt.link import Link
from producers.bridge.mqtt.packets import pubacks
from producers.bridge.settings import BridgeSettings
from schemas.limits import MAX_BROKER_BYTES
from schemas.runtime.health import Health
from schemas.transport.backoff import Backoff
from schemas.transport.mqtt.connection import Retries
from tests.producers.scripted_broker import (
    DISCONNECT,
    NOT_AUTHORIZED,
    PINGREQ,
    SUBSCRIBE,
    TAKEN_OVER,
    ScriptedBroker,
    scripted_broker,
)
from tests.waiting import PATIENCE_S, until

SHARED = ["$share/share/pointillist/v1/+/+/event", "$share/share/pointillist/v1/+/+/frame"]
PLAIN = ["pointillist/v1/+/+/status", "pointillist/v1/+/+/meta"]


class Linked:
    """A link with what it has handed on."""

    def __init__(self, broker: ScriptedBroker, **settings: Any) -> None:
        self.came: list[tuple[bytes, int, bytes]] = []
        self.opened = 0
        self.health = Health()
        given = {"mqtt": f"127.0.0.1:{broker.port}", "name": "b1", "group": "share", "keepalive_s": 30, **settings}
        self.gathers = False
        self.link = Link(BridgeSettings(**given), self._note, self._open, self.health, lambda: self.gathers)

    def _note(self, topic: bytes, packet_id: int, payload: bytes, _retained: bool) -> None:
        if payload == b"a defect":
            raise RuntimeError("a defect")
        self.came.append((topic, packet_id, payload))

    def _open(self) -> None:
        self.opened += 1

    def writable(self) -> bool:
        return self.link.writable

    def paused(self) -> bool:
        return self.link.is_paused

    def well(self) -> bool:
        return self.health.report()[0]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "RETRIES", Retries(connect_s=5.0, first_s=0.01, longest_s=0.04, steady_s=10.0))
    monkeypatch.setattr(link_module, "TICK_S", 0.02)


@asynccontextmanager
async def linked(broker: ScriptedBroker, **settings: Any) -> AsyncIterator[Linked]:
    it = Linked(broker, **settings)
    task = asyncio.create_task(it.link.run())
    try:
        yield it
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_connection_says_who_it_is_and_what_it_can_take() -> None:
    async with scripted_broker() as broker:
        told = {"receive_maximum": 77, "keepalive_s": 41}
        async with linked(broker, **told) as it:
            assert it.health.report() == (False, {"mqtt": {"ok": False, "detail": "not connected yet"}})
            assert not it.writable()
            await until(it.well, "a link that is well")
            assert it.writable()
            assert it.opened == 1
    (found,) = broker.connects
    assert found[:3] == ("b1", True, 41)
    assert found.properties == {"SessionExpiryInterval": 0, "ReceiveMaximum": 77, "MaximumPacketSize": MAX_BROKER_BYTES}


async def test_retained_channels_are_subscribed_plainly_and_the_others_as_a_share() -> None:
    async with scripted_broker() as broker, linked(broker) as it:
        await until(it.well, "a link that is well")
        (filters,) = broker.subscribed
        assert sorted(filters) == sorted((name, 1) for name in [*SHARED, *PLAIN])
        assert not it.paused()


async def test_a_paused_link_reads_nothing_and_stays_connected_until_it_reads_again() -> None:
    async with scripted_broker() as broker, linked(broker, keepalive_s=1) as it:
        await until(it.well, "a link that is well")
        it.link.pause()
        assert it.paused()
        broker.answers = False
        broker.publish("a/b", b"later", 3)
        await asyncio.sleep(2.2)  # twice the keep-alive: a link that read would have hung up by now
        assert not it.came
        assert len(broker.connects) == 1
        it.link.resume()
        assert not it.paused()
        await until(lambda: len(it.came) == 1, "the message")


async def test_messages_are_gathered_in_the_socket_after_a_small_read() -> None:
    async with scripted_broker() as broker, linked(broker) as it:
        await until(it.well, "a link that is well")
        it.gathers = True
        broker.publish("a/b", b"first", 1)
        await until(lambda: len(it.came) == 1, "the message")
        for number in (2, 3):
            broker.publish("a/b", b"later", number)
        await asyncio.sleep(0.1)  # time to read them, if it did
        assert len(it.came) == 1
        it.gathers = False
        it.link.read_gathered()
        await until(lambda: len(it.came) == 3, "the gathered messages")
        broker.publish("a/b", b"last", 4)
        await until(lambda: len(it.came) == 4, "a message that is read at once")


async def test_a_message_that_has_not_come_whole_is_read_on() -> None:
    async with scripted_broker() as broker, linked(broker) as it:
        await until(it.well, "a link that is well")
        it.gathers = True
        broker.publish("a/b", bytes(2**20), 1)
        await until(lambda: len(it.came) == 1, "a message of several reads")


async def test_a_pause_outlasts_the_gathering() -> None:
    async with scripted_broker() as broker, linked(broker) as it:
        await until(it.well, "a link that is well")
        it.gathers = True
        broker.publish("a/b", b"first", 1)
        await until(lambda: len(it.came) == 1, "the message")
        it.link.pause()
        broker.publish("a/b", b"later", 2)
        it.link.read_gathered()
        await asyncio.sleep(0.1)  # time to read it, if it did
        assert len(it.came) == 1
        it.gathers = False
        it.link.resume()
        await until(lambda: len(it.came) == 2, "the message")


async def test_a_broker_that_answers_no_ping_is_left() -> None:
    async with scripted_broker() as broker, linked(broker, keepalive_s=2) as it:
        await until(it.well, "a link that is well")
        await until(lambda: broker.count(PINGREQ) >= 1, "a ping")
        assert len(broker.connects) == 1
        broker.answers = False
        await until(lambda: it.opened > 1, "another connection")
        assert not it.well()


async def test_a_bridge_that_holds_frames_gives_its_subscription_up_and_takes_it_again() -> None:
    frames = SHARED[1]
    async with scripted_broker() as broker, linked(broker) as it:
        await until(it.well, "a link that is well")
        it.link.hold_frames(True)
        await until(lambda: broker.unsubscribed == [frames], "no more frames")
        broker.publish("a/b", b"an event", 3)
        await until(lambda: len(it.came) == 1, "an event")
        broker.hang_up()
        await until(lambda: it.opened == 2, "another connection")
        await broker.ready([SHARED[0], *PLAIN])
        await until(it.well, "a link that is well again")
        it.link.hold_frames(False)
        await until(lambda: broker.subscribed[1:] == [[(frames, 1)]], "frames again")
        assert broker.unsubscribed == []


async def test_frames_can_be_held_before_there_is_a_connection() -> None:
    async with scripted_broker() as broker:
        it = Linked(broker)
        it.link.hold_frames(True)
        it.link.pause()
        it.link.resume()
        it.link.send(pubacks([1]))
        task = asyncio.create_task(it.link.run())
        await broker.ready([SHARED[0], *PLAIN])
        assert broker.acknowledged == []
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("stream", [(0x30, b"\xff\xff"), (0x32, b"\x00\x01a\x00\x00\x00"), (0x00, b"")])
async def test_a_broker_that_speaks_no_mqtt_is_left_and_asked_again(stream: tuple[int, bytes]) -> None:
    async with scripted_broker() as broker, linked(broker) as it:
        await until(it.well, "a link that is well")
        broker.send(*stream)
        await until(lambda: it.opened == 2, "another connection")
        await until(it.well, "a link that is well again")
        assert it.came == []


async def test_a_message_that_finds_a_defect_costs_the_connection_and_nothing_more() -> None:
    async with scripted_broker() as broker, linked(broker) as it:
        await until(it.well, "a link that is well")
        broker.publish("a/b", b"a defect", 3)
        await until(lambda: it.opened == 2 and it.well(), "another connection")
        broker.publish("a/b", b"sound", 3)
        await until(lambda: it.came == [(b"a/b", 3, b"sound")], "the next message")


@pytest.mark.parametrize("answer", ["connack", "suback"])
async def test_a_refused_connection_or_subscription_is_tried_again(answer: str) -> None:
    async with scripted_broker() as broker:
        granted = getattr(broker, answer)
        setattr(broker, answer, NOT_AUTHORIZED)
        async with linked(broker) as it:
            await until(lambda: len(broker.connects) > 2, "several tries")
            assert answer == "suback" or broker.subscribed == []
            assert not it.well()
            assert not it.writable()
            assert "Not authorized" in str(it.health.report()[1]["mqtt"]["detail"])
            setattr(broker, answer, granted)
            await until(it.well, "a link that is well")


async def test_a_broker_that_does_not_give_its_log_is_as_good_a_broker() -> None:
    async with scripted_broker() as broker:
        broker.log_suback = NOT_AUTHORIZED
        async with linked(broker) as it:
            await until(lambda: broker.count(SUBSCRIBE) == 2, "asked for the log too")
            broker.publish("a/b", b"later", 1)
            await until(lambda: len(it.came) == 1, "a message")
            assert it.well()
            assert len(broker.connects) == 1


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays before attempts to connect, of which none is waited for."""
    found: list[float] = []
    next_s = Backoff.next_s

    def noted(backoff: Backoff) -> float:
        found.append(next_s(backoff))
        return 0.0

    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)
    monkeypatch.setattr(Backoff, "next_s", noted)
    return found


async def test_a_broker_that_is_not_there_is_dialled_after_growing_delays(delays: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with scripted_broker() as broker, linked(broker, mqtt=f"127.0.0.1:{unused.getsockname()[1]}") as it:
            await until(lambda: len(delays) >= 5, "five attempts")
            _, conditions = it.health.report()
    assert delays[:5] == pytest.approx([0.0075, 0.015, 0.03, 0.03, 0.03])
    assert "Connect call failed" in str(conditions["mqtt"]["detail"])


async def test_bridges_of_one_name_throw_each_other_out_less_and_less_often(delays: list[float]) -> None:
    async with scripted_broker() as broker, linked(broker) as it:
        for number in range(1, 6):
            await until(lambda: it.opened == number and it.well(), "a connection")  # noqa: B023
            broker.send(DISCONNECT, bytes((TAKEN_OVER, 0)))
            await until(lambda: len(delays) >= number, "the next attempt")  # noqa: B023
    assert delays[:5] == pytest.approx([0.0075, 0.015, 0.03, 0.03, 0.03])


async def test_close_writes_what_is_queued_says_goodbye_and_ends_the_run() -> None:
    async with scripted_broker() as broker:
        it = Linked(broker)
        task = asyncio.create_task(it.link.run())
        await until(it.well, "a link that is well")
        it.link.send(pubacks(range(1, 2000)))
        await asyncio.wait_for(it.link.close(), PATIENCE_S)
        await asyncio.wait_for(task, 60)
        await until(lambda: broker.count(DISCONNECT) == 1, "a goodbye")
        assert broker.acknowledged == list(range(1, 2000))
        assert len(broker.connects) == 1
        assert not it.writable()


async def test_a_link_that_has_nothing_to_write_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    write = PacketClient.loop_write

    def noted(client: PacketClient) -> object:
        nonlocal writes
        writes += 1
        return write(client)

    monkeypatch.setattr(PacketClient, "loop_write", noted)
    async with scripted_broker() as broker, linked(broker) as it:
        await until(it.well, "a link that is well")
        it.link.send(pubacks([1]))
        await until(lambda: broker.acknowledged == [1], "acknowledged")
        before = writes
        await asyncio.sleep(0.05)
        assert writes - before < 3


async def test_why_a_connection_ended_shows_in_the_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "RETRIES", Retries(connect_s=5.0, first_s=60.0, longest_s=60.0, steady_s=10.0))
    async with scripted_broker() as broker, linked(broker) as it:
        await until(it.well, "a link that is well")
        broker.send(DISCONNECT, bytes((TAKEN_OVER, 0)))
        await until(lambda: not it.well(), "a link that is not well")
        assert it.health.report()[1]["mqtt"] == {"ok": False, "detail": "Session taken over"}


@pytest.mark.parametrize(("reason", "said"), [(TAKEN_OVER, 1), (NOT_AUTHORIZED, 0)])
async def test_a_bridge_that_was_thrown_out_by_its_namesake_says_so(reason: int, said: int) -> None:
    with structlog.testing.capture_logs() as logs:
        async with scripted_broker() as broker, linked(broker) as it:
            await until(it.well, "a link that is well")
            broker.send(DISCONNECT, bytes((reason, 0)))
            await until(lambda: it.opened == 2, "another connection")
    assert sum(entry["event"] == "name_taken_over" for entry in logs) == said
