"""The MQTT broker with TLS: certificates of the fleet's authority, and the rights of cameras and roles."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.harness.services import started
from infra.admission.camera_revocation import revoke
from infra.local.mosquitto import Mosquitto
from infra.pki.authority import Authority
from infra.pki.roles import role_tls, share_name
from infra.preflight.brokers import require_mqtt
from infra.state_folder import Layout
from producers.publisher.broker import Broker
from producers.publisher.link import Link
from producers.publisher.settings import LinkSettings
from schemas.errors import BrokerError
from schemas.identity import CameraId
from schemas.runtime.json_files import write_json
from schemas.topics import Channel, every_camera_filter, mqtt_topic, shared_filter
from schemas.transport.access import Tls
from tests.infra.secure import WAIT_S, MqttVisitor, enroll_camera, make_fleet, server_without_tls

pytestmark = pytest.mark.brokers
DOOR, YARD = CameraId("site/door"), CameraId("site/yard")
NOT_AUTHORIZED = 0x87
CONNECT = b"\x10\x12\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x05visit"


def role(fleet: Layout, name: str) -> Tls:
    return role_tls(fleet.pki, name)


def publish_once(broker: tuple[str, int], tls: Tls, topic: str) -> int:
    """Publish to a topic and return the broker's reason code. A refused message ends the connection."""
    with MqttVisitor(broker, tls) as visitor:
        reason = visitor.publish(topic)
        assert reason != NOT_AUTHORIZED or visitor.disconnected.wait(WAIT_S)
        return reason


def test_a_camera_publishes_on_its_topics_and_the_bridge_receives_the_messages(
    fleet: Layout, broker: tuple[str, int]
) -> None:
    with MqttVisitor(broker, role(fleet, "bridge")) as bridge, MqttVisitor(broker, enroll_camera(fleet, DOOR)) as door:
        bridge.subscribe(shared_filter(share_name(fleet.pki), Channel.FRAME))
        bridge.subscribe(every_camera_filter(Channel.STATUS))
        door.subscribe(mqtt_topic(DOOR, Channel.CONFIRM))
        assert door.publish(mqtt_topic(DOOR, Channel.FRAME), b"frame") == 0
        assert door.publish(mqtt_topic(DOOR, Channel.STATUS), b"status", retain=True) == 0
        bridge.wait_for_messages(2)
        assert sorted(bridge.messages) == [
            (mqtt_topic(DOOR, Channel.FRAME), b"frame"),
            (mqtt_topic(DOOR, Channel.STATUS), b"status"),
        ]
        assert bridge.publish(mqtt_topic(DOOR, Channel.CONFIRM), b"done") == 0
        door.wait_for_messages(1)


def test_no_other_client_publishes_on_a_camera_s_topics(fleet: Layout, broker: tuple[str, int]) -> None:
    foreign = [mqtt_topic(DOOR, channel) for channel in Channel]
    own = [mqtt_topic(YARD, Channel.CONFIRM), mqtt_topic(YARD, Channel.SETTINGS), mqtt_topic(YARD, Channel.PROBES)]
    yard = enroll_camera(fleet, YARD)
    assert {publish_once(broker, yard, topic) for topic in [*foreign, *own, "elsewhere"]} == {NOT_AUTHORIZED}
    assert {publish_once(broker, role(fleet, "health"), topic) for topic in foreign} == {NOT_AUTHORIZED}
    reasons = {channel: publish_once(broker, role(fleet, "bridge"), mqtt_topic(DOOR, channel)) for channel in Channel}
    refused = {channel for channel, reason in reasons.items() if reason == NOT_AUTHORIZED}
    assert refused == {Channel.FRAME, Channel.META, Channel.STATUS, Channel.EVENT, Channel.SETTINGS}


def test_a_camera_receives_no_messages_of_other_cameras_or_of_the_bridge(
    fleet: Layout, broker: tuple[str, int]
) -> None:
    bridge_tls, door_tls, yard_tls = role(fleet, "bridge"), enroll_camera(fleet, DOOR), enroll_camera(fleet, YARD)
    with (
        MqttVisitor(broker, bridge_tls) as bridge,
        MqttVisitor(broker, door_tls) as door,
        MqttVisitor(broker, yard_tls) as yard,
    ):
        bridge.subscribe(shared_filter(share_name(fleet.pki), Channel.FRAME))
        for name in ("#", "$SYS/#", "$share/pointillist-bridge/#", shared_filter("pointillist-bridge", Channel.FRAME)):
            yard.subscribe(name)
        yard.subscribe(mqtt_topic(YARD, Channel.CONFIRM))
        for number in range(20):
            door.publish(mqtt_topic(DOOR, Channel.FRAME), b"%d" % number)
        bridge.publish(mqtt_topic(DOOR, Channel.CONFIRM), b"not for the yard")
        bridge.publish(mqtt_topic(YARD, Channel.CONFIRM), b"for the yard")
        bridge.wait_for_messages(20)
        yard.wait_for_messages(1)
        assert [payload for _, payload in bridge.messages] == [b"%d" % number for number in range(20)]
        assert {payload for _, payload in yard.messages} == {b"for the yard"}


def test_a_client_id_of_another_client_takes_over_no_session(fleet: Layout, broker: tuple[str, int]) -> None:
    with (
        MqttVisitor(broker, role(fleet, "bridge"), client_id="bridge") as bridge,
        MqttVisitor(broker, enroll_camera(fleet, DOOR), client_id="door") as door,
        MqttVisitor(broker, enroll_camera(fleet, YARD), client_id="bridge"),
    ):
        with MqttVisitor(broker, role(fleet, "health"), client_id=str(DOOR)):
            bridge.subscribe(every_camera_filter(Channel.EVENT))
            assert door.publish(mqtt_topic(DOOR, Channel.EVENT)) == 0
        assert not bridge.disconnected.is_set()
        assert not door.disconnected.is_set()


def test_a_revoked_camera_is_disconnected_at_once_and_its_certificate_refused(
    fleet: Layout, broker: tuple[str, int]
) -> None:
    porch = CameraId("site/porch")
    before = enroll_camera(fleet, porch)
    write_json(fleet.generations, {DOOR: 3})
    with MqttVisitor(broker, enroll_camera(fleet, DOOR)) as door, MqttVisitor(broker, before) as visitor:
        assert visitor.publish(mqtt_topic(porch, Channel.EVENT)) in (0, 16)
        done = revoke(fleet, porch, WAIT_S)
        assert visitor.disconnected.wait(WAIT_S)
        assert door.publish(mqtt_topic(DOOR, Channel.EVENT)) in (0, 16)
    assert (done.certificates, done.generation) == (1, 1)
    assert fleet.generations.read_text().split() == ["{", '"site/door":', "3,", '"site/porch":', "1", "}"]
    with pytest.raises(BrokerError, match="our certificate has been revoked: enrol again"):
        require_mqtt(broker, 30, before)


def test_a_tls_session_cannot_be_resumed_after_a_revocation(fleet: Layout, broker: tuple[str, int]) -> None:
    context = enroll_camera(fleet, "site/gate").context()

    def connect(session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
        plain = socket.create_connection(broker, WAIT_S)
        with context.wrap_socket(plain, server_hostname=broker[0], session=session) as link:
            link.sendall(CONNECT)
            assert link.recv(4)[:1] == b"\x20"
            return link.session_reused, link.session

    _, session = connect(None)
    assert connect(session)[0] is True
    revoke(fleet, CameraId("site/gate"), WAIT_S)
    # If the broker closes the connection before our first byte is sent, its reason is not read.
    with pytest.raises(OSError, match=r"revoked|EOF occurred|reset by peer"):
        connect(session)


def test_a_client_without_tls_gets_no_answer(broker: tuple[str, int]) -> None:
    with pytest.raises(BrokerError, match=r"expected a response within 0\.1 s, got none"):
        require_mqtt(broker, 0.1)


def test_the_error_for_a_server_without_tls_names_the_cause(fleet: Layout) -> None:
    with server_without_tls() as address, pytest.raises(BrokerError, match="a server without TLS on this port"):
        require_mqtt(address, 30, role(fleet, "bridge"))


@pytest.mark.parametrize(
    ("hosts", "own", "words"),
    [
        (("broker.example",), None, "it is for another (host name|address)"),
        (("127.0.0.1", "localhost"), -0.5, "it has expired"),
    ],
)
def test_a_server_with_an_invalid_certificate_is_not_trusted(
    tmp_path: Path, hosts: tuple[str, ...], own: float | None, words: str
) -> None:
    fleet = make_fleet(tmp_path, ("127.0.0.1", "localhost"))
    authority = Authority(fleet.pki)
    issued = authority.issue("mosquitto", hosts=hosts, client=False, days=own or 30)
    folder = fleet.pki / "roles" / "mosquitto"
    (folder / "tls.crt").write_text(issued.certificate)
    (folder / "tls.key").write_text(issued.key)
    with (
        started(_UncheckedMosquitto(fleet.folder, pki=fleet.pki)) as mosquitto,
        pytest.raises(BrokerError, match=f"the server's certificate is not to be trusted: {words}"),
    ):
        require_mqtt((mosquitto.host, mosquitto.port), WAIT_S, role(fleet, "bridge"))


class _UncheckedMosquitto(Mosquitto):
    """A mosquitto that counts as started once its port is open, even with an untrusted certificate."""

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), 1).close()
        except OSError:
            return False
        return True


class _LinkOwner:
    """An owner of a link that counts its connections."""

    def __init__(self) -> None:
        self.ups = 0

    def on_up(self, session_present: bool, receive_maximum: int, packet_bytes: int) -> None:
        self.ups += 1

    def on_puback(self, mid: int, reason: int) -> None: ...

    def on_message(self, topic: str, payload: bytes, retained: bool) -> None: ...

    def on_read(self) -> None: ...


async def test_two_devices_with_one_enrolment_reconnect_with_growing_pauses(
    fleet: Layout, broker: tuple[str, int]
) -> None:
    tls = enroll_camera(fleet, "site/twin")
    links = Broker(*broker, at_once=2, tls={CameraId("site/twin"): tls})
    owners = [_LinkOwner(), _LinkOwner()]
    quick = LinkSettings(reconnect_s=0.02, reconnect_max_s=1.0)
    will = (mqtt_topic(CameraId("site/twin"), Channel.STATUS), b"gone")
    twins = [Link(owner, f"pl{n}", links, lambda: will, [], quick, tls) for n, owner in enumerate(owners)]

    async def tick(until_s: float, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + until_s
        while not condition() and time.monotonic() < end:
            for twin in running:
                twin.tick(time.monotonic())
            await asyncio.sleep(0.01)

    try:
        running = twins[:1]
        await tick(WAIT_S, lambda: owners[0].ups == 1)
        running = twins
        await tick(WAIT_S, lambda: owners[1].ups == 1 and not twins[0].up)
        await tick(1.5, lambda: False)
        # The wait doubles each time. With constant waits of 0.02 s there would be a hundred connections.
        assert 2 <= sum(owner.ups for owner in owners) <= 20
    finally:
        for twin in twins:
            await twin.close(1.0)
