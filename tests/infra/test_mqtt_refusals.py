"""Forbidden requests to a real MQTT broker with rights: refused or bounded, and reported to the bridges."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.mosquitto import mqtt_refusal
from infra.pki.authority import Authority
from infra.pki.roles import role_tls
from infra.state_folder import Layout
from producers.bridge.mqtt.broker_log import LOG_FILTER, LOG_TOPIC, refused
from schemas.identity import CameraId
from schemas.limits import MAX_BROKER_BYTES
from schemas.topics import ROOT, Channel, every_camera_filter, mqtt_topic
from schemas.transport.access import Tls
from tests.infra.secure import WAIT_S, MqttVisitor, enroll_camera, make_fleet

pytestmark = pytest.mark.brokers
DOOR, YARD = CameraId("site/door"), CameraId("site/yard")


@pytest.fixture
def bridge(fleet: Layout, broker: tuple[str, int]) -> Iterator[MqttVisitor]:
    """Yield a client with the bridge's certificate that reads the broker's log."""
    with MqttVisitor(broker, role_tls(fleet.pki, "bridge")) as visitor:
        assert visitor.subscribe(LOG_FILTER) < 128
        yield visitor


def refusal_counts(bridge: MqttVisitor) -> Counter[tuple[str, str]]:
    lines = [refused(topic.encode(), line) for topic, line in bridge.messages if topic.encode().startswith(LOG_TOPIC)]
    return Counter((line.what, line.who) for line in lines if line is not None)


def wait_for_counts(bridge: MqttVisitor, expected: dict[tuple[str, str], int]) -> None:
    bridge._wait_for(lambda: sum(refusal_counts(bridge).values()) >= sum(expected.values()))
    assert refusal_counts(bridge) == expected


def test_a_forbidden_publish_is_reported_to_the_bridge(
    fleet: Layout, broker: tuple[str, int], bridge: MqttVisitor
) -> None:
    for qos in (0, 1):
        with MqttVisitor(broker, enroll_camera(fleet, YARD)) as yard:
            yard.client.publish(mqtt_topic(DOOR, Channel.FRAME), b"x", qos)
            assert yard.disconnected.wait(WAIT_S)
    wait_for_counts(bridge, {("publish", YARD): 2})


def test_forbidden_subscriptions_of_a_camera_are_reported_to_the_bridge(
    fleet: Layout, broker: tuple[str, int], bridge: MqttVisitor
) -> None:
    with MqttVisitor(broker, enroll_camera(fleet, YARD)) as yard:
        yard.subscribe(mqtt_topic(YARD, Channel.CONFIRM))
        for name in ("#", f"$share/bridges/{ROOT}/+/+/frame", mqtt_topic(DOOR, Channel.CONFIRM), LOG_FILTER):
            yard.subscribe(name)
    wait_for_counts(bridge, {("subscription", YARD): 4})


def test_a_session_takeover_and_an_oversize_message_are_reported_to_the_bridge(
    fleet: Layout, broker: tuple[str, int], bridge: MqttVisitor
) -> None:
    tls = enroll_camera(fleet, YARD)
    with MqttVisitor(broker, tls) as first, MqttVisitor(broker, tls) as second:
        assert first.disconnected.wait(WAIT_S)
        second.client.publish(mqtt_topic(YARD, Channel.FRAME), bytes(MAX_BROKER_BYTES + 1), 0)
        assert second.disconnected.wait(WAIT_S)
    wait_for_counts(bridge, {("takeover", YARD): 1, ("oversize", YARD): 1})


def test_failed_logins_are_counted_whatever_their_cause(
    fleet: Layout, broker: tuple[str, int], bridge: MqttVisitor, tmp_path: Path
) -> None:
    ours = Authority(fleet.pki).pem
    foreign = enroll_camera(make_fleet(tmp_path), DOOR).certificate
    for tls in (Tls(ours), Tls(ours, foreign)):
        with contextlib.suppress(OSError):  # the broker may close the connection before our first byte
            assert mqtt_refusal(*broker, WAIT_S, tls) is not None
    with socket.create_connection(broker, WAIT_S) as link:
        link.sendall(b"\x10\x12\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x05visit")
        with contextlib.suppress(ConnectionError):
            assert link.recv(1) == b""

    def logins() -> int:
        return sum(count for (what, _), count in refusal_counts(bridge).items() if what == "login")

    bridge._wait_for(lambda: logins() >= 3)
    # A late failure also has a line for its unnamed end. This later line proves that all earlier ones have arrived.
    with MqttVisitor(broker, enroll_camera(fleet, YARD)):
        bridge._wait_for(lambda: any(b"connected" in line and YARD.encode() in line for _, line in bridge.messages))
    assert logins() == 3


def test_a_connection_without_any_packet_is_counted_when_it_closes(
    broker: tuple[str, int], bridge: MqttVisitor
) -> None:
    for _ in range(3):
        socket.create_connection(broker, WAIT_S).close()
    bridge._wait_for(
        lambda: sum(count for (what, _), count in refusal_counts(bridge).items() if what == "unnamed") == 3
    )


def test_only_bridges_can_read_the_broker_s_log(fleet: Layout, broker: tuple[str, int], bridge: MqttVisitor) -> None:
    with (
        MqttVisitor(broker, enroll_camera(fleet, DOOR)) as door,
        MqttVisitor(broker, role_tls(fleet.pki, "admin")) as admin,
        MqttVisitor(broker, role_tls(fleet.pki, "health")) as health,
    ):
        for client in (door, admin, health):
            client.subscribe(LOG_FILTER)
            client.subscribe("$SYS/#")
        with MqttVisitor(broker, enroll_camera(fleet, YARD)):
            pass
        bridge._wait_for(lambda: any(b"connected" in line and YARD.encode() in line for _, line in bridge.messages))
        door.subscribe(mqtt_topic(DOOR, Channel.STATUS))
        door.publish(mqtt_topic(DOOR, Channel.STATUS))
        door.wait_for_messages(1)
        assert [topic for topic, _ in door.messages] == [mqtt_topic(DOOR, Channel.STATUS)]
        assert not admin.messages
        assert not health.messages


def test_a_camera_can_retain_at_most_four_messages(fleet: Layout, broker: tuple[str, int]) -> None:
    name = CameraId("site/hoard")
    tls = enroll_camera(fleet, name)
    own = (Channel.FRAME, Channel.META, Channel.STATUS, Channel.EVENT)
    with MqttVisitor(broker, tls) as hoard:
        for number in range(50):
            for channel in own:
                hoard.publish(mqtt_topic(name, channel), b"%d" % number, retain=True)
    for topic in (f"{mqtt_topic(name, Channel.META)}/1", mqtt_topic(name, Channel.CONFIRM), "hoard", "$SYS/hoard"):
        with MqttVisitor(broker, tls) as hoard:
            hoard.client.publish(topic, b"x", 1, retain=True)
            assert hoard.disconnected.wait(WAIT_S)
    with MqttVisitor(broker, role_tls(fleet.pki, "bridge")) as later:
        later.subscribe("#")
        later.subscribe("$SYS/hoard")
        later.wait_for_messages(4)
        with MqttVisitor(broker, tls) as hoard:
            hoard.publish(mqtt_topic(name, Channel.EVENT), b"last")
        later.wait_for_messages(5)
        found = Counter(topic for topic, _ in later.messages if name in topic or "hoard" in topic)
    assert found == {mqtt_topic(name, channel): 1 + (channel is Channel.EVENT) for channel in own}


def test_a_will_on_another_camera_s_topic_is_not_published(fleet: Layout, broker: tuple[str, int]) -> None:
    door_status, yard_status = mqtt_topic(DOOR, Channel.STATUS), mqtt_topic(YARD, Channel.STATUS)
    with MqttVisitor(broker, role_tls(fleet.pki, "bridge")) as bridge:
        bridge.subscribe(every_camera_filter(Channel.STATUS))
        for topic in (door_status, yard_status):
            visitor = MqttVisitor(broker, enroll_camera(fleet, YARD))
            visitor.client.will_set(topic, b"the last of it", 1, retain=True)
            with visitor:
                link = visitor.client.socket()
                assert isinstance(link, socket.socket)
                link.shutdown(socket.SHUT_RDWR)
                assert visitor.disconnected.wait(WAIT_S)
        wills = [(yard_status, b"the last of it")]
        bridge._wait_for(lambda: [message for message in bridge.messages if message[1] == wills[0][1]] == wills)
