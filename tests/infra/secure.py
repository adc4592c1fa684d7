"""A fleet's authority and MQTT clients, for tests of access to the brokers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from infra.local.mosquitto import Mosquitto
from infra.local.role_table import RoleTable
from infra.pki.authority import LOCAL_HOSTS, Authority, IssuedCertificate
from infra.pki.enrolment import Enrolment, enroll
from infra.pki.roles import CLIENTS, SERVERS, Roles
from infra.state_folder import Layout
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.runtime.atomic_file import write_text
from schemas.transport.access import Tls

WAIT_S = 60.0
SECRET = bytes(range(32))


def make_fleet(folder: Path, hosts: tuple[str, ...] = LOCAL_HOSTS) -> Layout:
    """Create an authority in a state folder, with the certificates of all roles."""
    layout = Layout(folder)
    Roles(Authority.create(layout.pki)).ensure((*SERVERS, *CLIENTS), hosts)
    return layout


@contextlib.contextmanager
def running_mosquitto(layout: Layout) -> Iterator[tuple[str, int]]:
    """Yield the address of a mosquitto that the fleet's `roles.json` lists, as `up` writes it."""
    mosquitto = Mosquitto(layout.folder, pki=layout.pki)
    with RoleTable(layout.folder) as table:
        table.record("mosquitto", mosquitto.start(), listen=mosquitto.listen)
        try:
            yield mosquitto.host, mosquitto.port
        finally:
            mosquitto.stop()


def enroll_camera(layout: Layout, name: str, days: float = 30) -> Tls:
    """Enrol a camera and return its TLS settings."""
    camera = CameraId(name)
    enroll(Authority(layout.pki), derive_camera_key(SECRET, camera), layout.enrolment(camera), days=days)
    return Enrolment.read(layout.enrolment(camera)).tls


def write_tls(authority: Authority, issued: IssuedCertificate, file: Path) -> Tls:
    """Write a certificate and its key to `file` and return them as TLS settings."""
    write_text(file, issued.key + issued.certificate, private=True)
    return Tls(authority.pem, file)


@dataclass
class MqttVisitor:
    """A blocking MQTT 5 client that may publish and subscribe to any topic.

    Each call returns when the broker has answered. `messages` are the received (topic, payload) pairs.
    """

    address: tuple[str, int]
    tls: Tls | None
    client_id: str = "visitor"
    messages: list[tuple[str, bytes]] = field(default_factory=list)
    disconnected: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._answers: dict[int, list[ReasonCode]] = {}
        self._changed = threading.Condition()
        self._connect_reason: ReasonCode | None = None
        client = self.client = Client(
            CallbackAPIVersion.VERSION2, self.client_id, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False
        )
        if self.tls is not None:
            client.tls_set_context(self.tls.context())
        client.on_connect = self._connected
        client.on_publish = lambda _c, _u, mid, reason, _p: self._answer(mid, [reason])
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: self._answer(mid, reasons)
        client.on_message = self._message
        client.on_disconnect = lambda *_: self.disconnected.set()

    def __enter__(self) -> Self:
        self.client.connect(*self.address)
        self.client.loop_start()
        self._wait_for(lambda: self._connect_reason is not None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        # Client and visitor refer to each other: paho's socket pair would stay open until a garbage collection.
        self.client._reset_sockets(sockpair_only=True)

    def publish(self, topic: str, payload: bytes = b"x", retain: bool = False) -> int:
        """Publish and return the broker's reason code.

        0 is accepted, 16 accepted without a subscriber, 0x87 not authorized.
        """
        return self._answered(self.client.publish(topic, payload, 1, retain).mid)

    def subscribe(self, topic: str) -> int:
        """Subscribe and return the broker's reason code."""
        result, mid = self.client.subscribe(topic, 1)
        assert result == MQTTErrorCode.MQTT_ERR_SUCCESS
        assert mid is not None
        return self._answered(mid)

    def wait_for_messages(self, count: int) -> None:
        """Wait until this many messages have arrived."""
        self._wait_for(lambda: len(self.messages) >= count)

    def _answered(self, mid: int) -> int:
        self._wait_for(lambda: mid in self._answers)
        return self._answers[mid][0].value

    def _wait_for(self, condition: object) -> None:
        assert callable(condition)
        with self._changed:
            assert self._changed.wait_for(condition, WAIT_S), "the broker has not answered"

    def _connected(self, _c: Client, _u: object, _f: ConnectFlags, reason: ReasonCode, _p: Properties | None) -> None:
        with self._changed:
            self._connect_reason = reason
            self._changed.notify_all()

    def _answer(self, mid: int, reasons: list[ReasonCode]) -> None:
        with self._changed:
            self._answers[mid] = reasons
            self._changed.notify_all()

    def _message(self, _c: Client, _u: object, message: MQTTMessage) -> None:
        with self._changed:
            self.messages.append((message.topic, bytes(message.payload)))
            self._changed.notify_all()


@contextlib.contextmanager
def server_without_tls() -> Iterator[tuple[str, int]]:
    """Yield the address of a server that accepts connections and answers in neither TLS nor MQTT."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listening.accept()
                with link:
                    link.recv(1)
                    link.sendall(b"SSH-2.0-nothing of the kind\r\n")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield ("127.0.0.1", listening.getsockname()[1])
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
