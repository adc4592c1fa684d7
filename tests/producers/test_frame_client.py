"""The publisher's MQTT client compared with paho's own."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from functools import partial

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from infra.local.mosquitto import Mosquitto
from producers.publisher.client import FrameClient
from tests.waiting import PATIENCE_S

NO_SUBSCRIBERS = 16


def connected(client: Client, mosquitto: Mosquitto) -> Client:
    if isinstance(client, FrameClient):
        client.connect_async(mosquitto.host, mosquitto.port)
        client.adopt(socket.create_connection((mosquitto.host, mosquitto.port)))
    else:
        client.connect(mosquitto.host, mosquitto.port)
    read_until(client, client.is_connected)
    return client


def read_until(client: Client, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        connection = client.socket()
        assert isinstance(connection, socket.socket)
        select.select([connection], [], [], 1.0)
        client.loop_read()


def has_thirty(reported: list[tuple[int, int]]) -> bool:
    return len(reported) == 30


@pytest.mark.brokers
@pytest.mark.parametrize("subscribed", [False, True])
def test_acknowledgements_are_reported_as_by_paho_itself(mosquitto: Mosquitto, subscribed: bool) -> None:
    ours: list[tuple[int, int]] = []
    theirs: list[tuple[int, int]] = []
    client = FrameClient("frames", lambda mid, reason: ours.append((mid, reason)))
    plain = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    plain.max_inflight_messages = 0
    plain.on_publish = lambda _client, _data, mid, reason, _properties: theirs.append((mid, reason.value))
    listener = connected(Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5), mosquitto)
    if subscribed:
        granted: list[object] = []
        listener.on_subscribe = lambda *_: granted.append(_)
        listener.subscribe("acknowledgements/#", 0)
        read_until(listener, lambda: granted)
    for each, reported in ((client, ours), (plain, theirs)):
        connected(each, mosquitto)
        mids = [each.publish("acknowledgements/x", b"frame", 1).mid for _ in range(30)]
        read_until(each, partial(has_thirty, reported))
        assert reported == [(mid, 0 if subscribed else NO_SUBSCRIBERS) for mid in mids]
        each.disconnect()
    listener.disconnect()
    assert ours == theirs
    assert not client._out_messages
    assert client._inflight_messages == plain._inflight_messages
