"""Cameras with a valid enrolment in an attacker's hands, beside those of a running system."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.attacks.table.line import Line
from benchmarks.system import RunningSystem
from infra.layout import Layout
from infra.pki.authority import Authority
from infra.pki.enrolment import Enrolment, enroll
from producers.bridge.mqtt.packets import publish_qos_0
from schemas.identity import CameraId
from schemas.topics import Channel, mqtt_topic


def enrolled(layout: Layout, camera: CameraId) -> Enrolment:
    """Enrol a camera in a running system."""
    layout.issue_key(camera)
    enroll(Authority(layout.pki), layout.camera_key(camera), layout.enrolment(camera))
    return Enrolment.read(layout.enrolment(camera))


def mqtt_of(system: RunningSystem) -> tuple[str, int]:
    """Where its MQTT broker listens."""
    host, _, port = str(system.roles()["mosquitto"]["listen"]).rpartition(":")
    return host, int(port)


@dataclass
class Intruder:
    """Publishes what he likes at QoS 0; thrown out, he comes back."""

    address: tuple[str, int]
    enrolment: Enrolment
    thrown_out: int = 0
    _line: Line | None = field(default=None, repr=False)

    @property
    def own_topic(self) -> str:
        """Of his camera's frames."""
        return mqtt_topic(self.enrolment.camera, Channel.FRAME)

    def publish(self, topic: str, payload: bytes) -> None:
        """Say it; the next time on a new connection if this one is ended for it."""
        packet = publish_qos_0(topic, payload)
        try:
            self._connected().send(packet)
        except OSError:
            self.close()
            self.thrown_out += 1
            self._connected().send(packet)

    def close(self) -> None:
        """Leave."""
        if self._line is not None:
            self._line.close()
        self._line = None

    def _connected(self) -> Line:
        if self._line is None:
            self._line = Line(self.address, self.enrolment.tls)
        return self._line
