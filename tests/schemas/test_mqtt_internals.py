"""The private members of paho that the transport layer uses, checked against a real broker."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from paho.mqtt.client import Client

from infra.local.mosquitto import Mosquitto
from schemas.transport.mqtt.internals import SocketClient
from schemas.transport.mqtt.packets import packet, text
from schemas.varint import varint
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.brokers
KEEPALIVE_S = 60
PUBLISH = 0x30
PUBLISH_QOS_0 = b"\x30\x05\x00\x01x\x00!"


def drive(client: Client, holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        connection = client.socket()
        assert isinstance(connection, socket.socket)
        select.select([connection], [], [], 1.0)
        client.loop_read()


@pytest.fixture
def client(mosquitto: Mosquitto) -> Iterator[SocketClient]:
    socket_client = SocketClient("internals")
    socket_client.connect_async(mosquitto.host, mosquitto.port, KEEPALIVE_S)
    socket_client.adopt(socket.create_connection((mosquitto.host, mosquitto.port)))
    drive(socket_client, socket_client.is_connected)
    yield socket_client
    socket_client.disconnect()


def test_a_reconnect_without_an_adopted_socket_is_rejected(mosquitto: Mosquitto) -> None:
    socket_client = SocketClient("internals")
    socket_client.connect_async(mosquitto.host, mosquitto.port)
    with pytest.raises(ConnectionError, match="adopt"):
        socket_client.reconnect()


def test_raw_packets_reach_the_broker(client: SocketClient) -> None:
    received: list[bytes] = []
    subscribed: list[object] = []
    client.on_message = lambda _client, _data, message: received.append(bytes(message.payload))
    client.on_subscribe = lambda *_: subscribed.append(_)
    client.subscribe("x")
    drive(client, lambda: subscribed)
    client.send(PUBLISH_QOS_0)
    drive(client, lambda: received)
    assert received == [b"!"]


@pytest.mark.parametrize("qos", [0, 1])
def test_properties_that_paho_rejects_do_not_end_the_connection(client: SocketClient, qos: int) -> None:
    topic, received = f"properties/{qos}", list[tuple[str, bytes]]()
    content_type = b"\x03" + text(b"\xef\xbb\xbf" + b"x" * 200)  # U+FEFF, and a length of two digits
    number = b"\x00\x09" if qos else b""
    body = text(topic.encode()) + number + varint(len(content_type)) + content_type + b"held"
    client.send(packet(PUBLISH | 2 * qos | 1, body))  # retained
    client.on_message = lambda _client, _data, message: received.append((message.topic, bytes(message.payload)))
    client.subscribe(topic, qos)
    drive(client, lambda: received)
    client.send(packet(PUBLISH | 1, text(topic.encode()) + b"\0"))
    assert received == [(topic, b"held")]


def test_a_packet_read_elsewhere_is_handled(client: SocketClient) -> None:
    granted: list[int] = []
    client.on_subscribe = lambda _client, _data, mid, _reasons, _properties: granted.append(mid)
    client.handle_packet(0x90, b"\x00\x07\x00\x00")
    assert granted == [7]


def test_a_lost_connection_is_closed_and_reported(client: SocketClient) -> None:
    reports: list[object] = []
    client.on_disconnect = lambda *_: reports.append(_)
    client.lose()
    assert len(reports) == 1
    assert client.socket() is None


@pytest.mark.parametrize("excused", [True, False])
def test_silence_ends_the_connection_unless_it_is_excused(
    client: SocketClient, monkeypatch: pytest.MonkeyPatch, excused: bool
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("paho.mqtt.client.time_func", lambda: now + 1.5 * KEEPALIVE_S)
    monkeypatch.setattr("schemas.transport.mqtt.internals.time.monotonic", lambda: now + 3 * KEEPALIVE_S)
    client.loop_misc()  # sends a PINGREQ
    monkeypatch.setattr("paho.mqtt.client.time_func", lambda: now + 3 * KEEPALIVE_S)
    if excused:
        client.excuse_silence()
    client.loop_misc()
    assert (client.socket() is not None) == excused


def test_a_settled_message_is_settled_once(client: SocketClient) -> None:
    mid = client.publish("x", b"!", 1).mid
    assert client.settle(mid)
    assert not client.settle(mid)
    assert client.drop_out_messages() == []
