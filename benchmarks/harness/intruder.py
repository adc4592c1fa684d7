"""Enrolled cameras under an attacker's control, next to the cameras of a running system."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.harness.mqtt_line import Line
from benchmarks.harness.system import RunningSystem
from infra.pki.authority import Authority
from infra.pki.enrolment import Enrolment, enroll
from infra.state_folder import Layout
from producers.bridge.mqtt.packets import publish_qos_0
from schemas.identity import CameraId
from schemas.topics import Channel, mqtt_topic


def enrolled(layout: Layout, camera: CameraId) -> Enrolment:
    """Enrol a camera in a running system."""
    layout.issue_key(camera)
    enroll(Authority(layout.pki), layout.camera_key(camera), layout.enrolment(camera))
    return Enrolment.read(layout.enrolment(camera))


def mqtt_of(system: RunningSystem) -> tuple[str, int]:
    """Return the host and port of the system's MQTT broker."""
    host, _, port = str(system.roles()["mosquitto"]["listen"]).rpartition(":")
    return host, int(port)


@dataclass
class Intruder:
    """A client that publishes arbitrary messages at QoS 0 and reconnects when it is disconnected."""

    address: tuple[str, int]
    enrolment: Enrolment
    thrown_out: int = 0
    _line: Line | None = field(default=None, repr=False)

    @property
    def own_topic(self) -> str:
        """The frame topic of its camera."""
        return mqtt_topic(self.enrolment.camera, Channel.FRAME)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish the payload. If the broker ends the connection, the next call opens a new one."""
        packet = publish_qos_0(topic, payload)
        try:
            self._connected().send(packet)
        except OSError:
            self.close()
            self.thrown_out += 1
            self._connected().send(packet)

    def close(self) -> None:
        """Close the connection."""
        if self._line is not None:
            self._line.close()
        self._line = None

    def _connected(self) -> Line:
        if self._line is None:
            self._line = Line(self.address, self.enrolment.tls)
        return self._line
