"""The bridge's MQTT connection against a broker whose answers the test chooses."""

from __future__ import annotations

import asyncio
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
from tests.waiting import PATIENCE_S, running, until

SHARED = ["$share/share/pointillist/v1/+/+/event", "$share/share/pointillist/v1/+/+/frame"]
PLAIN = ["pointillist/v1/+/+/status", "pointillist/v1/+/+/meta"]


class RunningLink:
    """A link with the messages that it has delivered."""

    def __init__(self, broker: ScriptedBroker, **settings: Any) -> None:
        self.received: list[tuple[bytes, int, bytes]] = []
        self.opened = 0
        self.health = Health()
        options = {"mqtt": f"127.0.0.1:{broker.port}", "name": "b1", "group": "share", "keepalive_s": 30, **settings}
        self.gathers = False
        self.link = Link(BridgeSettings(**options), self._note, self._open, self.health, lambda: self.gathers)

    def _note(self, topic: bytes, packet_id: int, payload: bytes, _retained: bool) -> None:
        if payload == b"a defect":
            raise RuntimeError("a defect")
        self.received.append((topic, packet_id, payload))

    def _open(self) -> None:
        self.opened += 1

    def writable(self) -> bool:
        return self.link.writable

    def paused(self) -> bool:
        return self.link.is_paused

    def is_healthy(self) -> bool:
        return self.health.report()[0]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "RETRIES", Retries(connect_s=5.0, first_s=0.01, longest_s=0.04, steady_s=10.0))
    monkeypatch.setattr(link_module, "TICK_S", 0.02)


@asynccontextmanager
async def running_link(broker: ScriptedBroker, **settings: Any) -> AsyncIterator[RunningLink]:
    linked = RunningLink(broker, **settings)
    async with running(linked.link.run()):
        yield linked


async def test_a_connect_packet_carries_the_name_the_limits_and_no_session() -> None:
    async with scripted_broker() as broker:
        options = {"receive_maximum": 77, "keepalive_s": 41}
        async with running_link(broker, **options) as linked:
            assert linked.health.report() == (False, {"mqtt": {"ok": False, "detail": "not connected yet"}})
            assert not linked.writable()
            await until(linked.is_healthy, "a link that is healthy")
            assert linked.writable()
            assert linked.opened == 1
    (found,) = broker.connects
    assert found[:3] == ("b1", True, 41)
    assert found.properties == {"SessionExpiryInterval": 0, "ReceiveMaximum": 77, "MaximumPacketSize": MAX_BROKER_BYTES}


async def test_retained_channels_have_plain_subscriptions_and_the_others_a_shared_one() -> None:
    async with scripted_broker() as broker, running_link(broker) as linked:
        await until(linked.is_healthy, "a link that is healthy")
        (filters,) = broker.subscribed
        assert sorted(filters) == sorted((name, 1) for name in [*SHARED, *PLAIN])
        assert not linked.paused()


async def test_a_paused_link_reads_nothing_and_stays_connected_until_it_reads_again() -> None:
    async with scripted_broker() as broker, running_link(broker, keepalive_s=1) as linked:
        await until(linked.is_healthy, "a link that is healthy")
        linked.link.pause()
        assert linked.paused()
        broker.answers = False
        broker.publish("a/b", b"later", 3)
        await asyncio.sleep(2.2)  # twice the keep-alive: a link that read would have closed the connection by now
        assert not linked.received
        assert len(broker.connects) == 1
        linked.link.resume()
        assert not linked.paused()
        await until(lambda: len(linked.received) == 1, "the message")


async def test_messages_stay_in_the_socket_after_a_small_read_until_gathering_ends() -> None:
    async with scripted_broker() as broker, running_link(broker) as linked:
        await until(linked.is_healthy, "a link that is healthy")
        linked.gathers = True
        broker.publish("a/b", b"first", 1)
        await until(lambda: len(linked.received) == 1, "the message")
        for number in (2, 3):
            broker.publish("a/b", b"later", number)
        await asyncio.sleep(0.1)  # a link that did not gather would read them in this time
        assert len(linked.received) == 1
        linked.gathers = False
        linked.link.read_gathered()
        await until(lambda: len(linked.received) == 3, "the gathered messages")
        broker.publish("a/b", b"last", 4)
        await until(lambda: len(linked.received) == 4, "a message that is read at once")


async def test_a_partly_received_message_is_read_to_its_end() -> None:
    async with scripted_broker() as broker, running_link(broker) as linked:
        await until(linked.is_healthy, "a link that is healthy")
        linked.gathers = True
        broker.publish("a/b", bytes(2**20), 1)
        await until(lambda: len(linked.received) == 1, "a message of several reads")


async def test_a_pause_continues_after_gathering_ends() -> None:
    async with scripted_broker() as broker, running_link(broker) as linked:
        await until(linked.is_healthy, "a link that is healthy")
        linked.gathers = True
        broker.publish("a/b", b"first", 1)
        await until(lambda: len(linked.received) == 1, "the message")
        linked.link.pause()
        broker.publish("a/b", b"later", 2)
        linked.link.read_gathered()
        await asyncio.sleep(0.1)  # a link that did not pause would read it in this time
        assert len(linked.received) == 1
        linked.gathers = False
        linked.link.resume()
        await until(lambda: len(linked.received) == 2, "the message")


async def test_a_broker_that_answers_no_ping_is_disconnected() -> None:
    async with scripted_broker() as broker, running_link(broker, keepalive_s=2) as linked:
        await until(linked.is_healthy, "a link that is healthy")
        await until(lambda: broker.count(PINGREQ) >= 1, "a ping")
        assert len(broker.connects) == 1
        broker.answers = False
        await until(lambda: linked.opened > 1, "another connection")
        assert not linked.is_healthy()


async def test_a_bridge_that_holds_frames_back_unsubscribes_from_them_and_subscribes_again_later() -> None:
    frames = SHARED[1]
    async with scripted_broker() as broker, running_link(broker) as linked:
        await until(linked.is_healthy, "a link that is healthy")
        linked.link.hold_frames(True)
        await until(lambda: broker.unsubscribed == [frames], "no more frames")
        broker.publish("a/b", b"an event", 3)
        await until(lambda: len(linked.received) == 1, "an event")
        broker.hang_up()
        await until(lambda: linked.opened == 2, "another connection")
        await broker.ready([SHARED[0], *PLAIN])
        await until(linked.is_healthy, "a link that is healthy again")
        linked.link.hold_frames(False)
        await until(lambda: broker.subscribed[1:] == [[(frames, 1)]], "frames again")
        assert broker.unsubscribed == []


async def test_a_bridge_that_holds_events_back_unsubscribes_from_them_and_stays_writable_without_any_subscription() -> (
    None
):
    events = [SHARED[0], *PLAIN]
    async with scripted_broker() as broker, running_link(broker) as linked:
        await until(linked.is_healthy, "a link that is healthy")
        linked.link.hold_events(True)
        await until(lambda: broker.unsubscribed == events, "no more events")
        linked.link.hold_frames(True)
        await until(lambda: broker.unsubscribed == [*events, SHARED[1]], "no more frames")
        broker.hang_up()
        await until(lambda: linked.opened == 2, "another connection")
        await until(linked.is_healthy, "a link that is healthy again")
        assert linked.link.writable
        assert broker.subscribed == []
        linked.link.hold_events(False)
        await until(lambda: broker.subscribed == [[(name, 1) for name in events]], "events again")


async def test_frames_can_be_held_back_before_the_first_connection() -> None:
    async with scripted_broker() as broker:
        linked = RunningLink(broker)
        linked.link.hold_frames(True)
        linked.link.pause()
        linked.link.resume()
        linked.link.send(pubacks([1]))
        async with running(linked.link.run()):
            await broker.ready([SHARED[0], *PLAIN])
            assert broker.acknowledged == []


@pytest.mark.parametrize("stream", [(0x30, b"\xff\xff"), (0x32, b"\x00\x01a\x00\x00\x00"), (0x00, b"")])
async def test_the_link_reconnects_after_packets_that_are_no_mqtt(stream: tuple[int, bytes]) -> None:
    async with scripted_broker() as broker, running_link(broker) as linked:
        await until(linked.is_healthy, "a link that is healthy")
        broker.send(*stream)
        await until(lambda: linked.opened == 2, "another connection")
        await until(linked.is_healthy, "a link that is healthy again")
        assert linked.received == []


async def test_an_exception_in_the_handler_of_a_message_costs_only_the_connection() -> None:
    async with scripted_broker() as broker, running_link(broker) as linked:
        await until(linked.is_healthy, "a link that is healthy")
        broker.publish("a/b", b"a defect", 3)
        await until(lambda: linked.opened == 2 and linked.is_healthy(), "another connection")
        broker.publish("a/b", b"sound", 3)
        await until(lambda: linked.received == [(b"a/b", 3, b"sound")], "the next message")


@pytest.mark.parametrize("answer", ["connack", "suback"])
async def test_a_rejected_connection_or_subscription_is_retried(answer: str) -> None:
    async with scripted_broker() as broker:
        granted = getattr(broker, answer)
        setattr(broker, answer, NOT_AUTHORIZED)
        async with running_link(broker) as linked:
            await until(lambda: len(broker.connects) > 2, "several tries")
            assert answer == "suback" or broker.subscribed == []
            assert not linked.is_healthy()
            assert not linked.writable()
            assert "Not authorized" in str(linked.health.report()[1]["mqtt"]["detail"])
            setattr(broker, answer, granted)
            await until(linked.is_healthy, "a link that is healthy")


async def test_a_broker_that_rejects_the_log_subscription_still_serves_the_link() -> None:
    async with scripted_broker() as broker:
        broker.log_suback = NOT_AUTHORIZED
        async with running_link(broker) as linked:
            await until(lambda: broker.count(SUBSCRIBE) == 2, "asked for the log too")
            broker.publish("a/b", b"later", 1)
            await until(lambda: len(linked.received) == 1, "a message")
            assert linked.is_healthy()
            assert len(broker.connects) == 1


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the delays before attempts to connect, and skip them."""
    found: list[float] = []
    next_s = Backoff.next_s

    def noted(backoff: Backoff) -> float:
        found.append(next_s(backoff))
        return 0.0

    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)
    monkeypatch.setattr(Backoff, "next_s", noted)
    return found


async def test_an_unreachable_broker_is_dialled_after_growing_delays(delays: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with (
            scripted_broker() as broker,
            running_link(broker, mqtt=f"127.0.0.1:{unused.getsockname()[1]}") as linked,
        ):
            await until(lambda: len(delays) >= 5, "five attempts")
            _, conditions = linked.health.report()
    assert delays[:5] == pytest.approx([0.0075, 0.015, 0.03, 0.03, 0.03])
    assert "Connect call failed" in str(conditions["mqtt"]["detail"])


async def test_bridges_of_one_name_take_over_each_others_connection_after_growing_delays(delays: list[float]) -> None:
    async with scripted_broker() as broker, running_link(broker) as linked:
        for number in range(1, 6):
            await until(lambda: linked.opened == number and linked.is_healthy(), "a connection")  # noqa: B023
            broker.send(DISCONNECT, bytes((TAKEN_OVER, 0)))
            await until(lambda: len(delays) >= number, "the next attempt")  # noqa: B023
    assert delays[:5] == pytest.approx([0.0075, 0.015, 0.03, 0.03, 0.03])


async def test_close_writes_queued_packets_disconnects_and_ends_the_run() -> None:
    async with scripted_broker() as broker:
        linked = RunningLink(broker)
        task = asyncio.create_task(linked.link.run())
        await until(linked.is_healthy, "a link that is healthy")
        linked.link.send(pubacks(range(1, 2000)))
        await asyncio.wait_for(linked.link.close(), PATIENCE_S)
        await asyncio.wait_for(task, 60)
        await until(lambda: broker.count(DISCONNECT) == 1, "a DISCONNECT")
        assert broker.acknowledged == list(range(1, 2000))
        assert len(broker.connects) == 1
        assert not linked.writable()


async def test_an_idle_link_does_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    write = PacketClient.loop_write

    def noted(client: PacketClient) -> object:
        nonlocal writes
        writes += 1
        return write(client)

    monkeypatch.setattr(PacketClient, "loop_write", noted)
    async with scripted_broker() as broker, running_link(broker) as linked:
        await until(linked.is_healthy, "a link that is healthy")
        linked.link.send(pubacks([1]))
        await until(lambda: broker.acknowledged == [1], "acknowledged")
        before = writes
        await asyncio.sleep(0.05)
        assert writes - before < 3


async def test_the_reason_of_a_lost_connection_is_in_the_health_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "RETRIES", Retries(connect_s=5.0, first_s=60.0, longest_s=60.0, steady_s=10.0))
    async with scripted_broker() as broker, running_link(broker) as linked:
        await until(linked.is_healthy, "a link that is healthy")
        broker.send(DISCONNECT, bytes((TAKEN_OVER, 0)))
        await until(lambda: not linked.is_healthy(), "a link that is not healthy")
        assert linked.health.report()[1]["mqtt"] == {"ok": False, "detail": "Session taken over"}


@pytest.mark.parametrize(("reason", "logged"), [(TAKEN_OVER, 1), (NOT_AUTHORIZED, 0)])
async def test_a_takeover_by_another_bridge_of_the_same_name_is_logged(reason: int, logged: int) -> None:
    with structlog.testing.capture_logs() as logs:
        async with scripted_broker() as broker, running_link(broker) as linked:
            await until(linked.is_healthy, "a link that is healthy")
            broker.send(DISCONNECT, bytes((reason, 0)))
            await until(lambda: linked.opened == 2, "another connection")
    assert sum(entry["event"] == "name_taken_over" for entry in logs) == logged
