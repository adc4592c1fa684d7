"""The attacked system: its addresses, the attackers' credentials, and its counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from benchmarks.harness.intruder import enrolled, mqtt_of
from benchmarks.harness.records import rows
from benchmarks.harness.system import RunningSystem
from infra.audit.kafka_files import read_topic
from infra.pki.authority import Authority
from infra.pki.enrolment import Enrolment
from infra.state_folder import Layout
from infra.up.scrape import Samples
from schemas import metrics as m
from schemas.clock import unix_ms
from schemas.identity import CameraId
from schemas.messages.frame import Encoding, encode_frame
from schemas.runtime.atomic_file import write_text
from schemas.topics import KafkaTopic
from schemas.transport.access import Tls

DROPPED: Final = 16
"""Dropped pixels among the 64 of a block, as the cameras are set."""
MALLORY: Final = CameraId("local/mallory")
"""A camera with a valid enrolment, under an attacker's control."""

Window: TypeAlias = tuple[int, int]
"""A half-open time interval [from, to) in Unix milliseconds."""
_COUNTED: Final = (
    (m.MQTT_REFUSALS, "kind", "mqtt"),
    (m.BRIDGE_OVER_QUOTA, "camera_id", "over quota"),
    (m.DEAD_LETTERS, "reason", "dead letter"),
    (m.REFUSED, "reason", "processor"),
    (m.RECORDED, "outcome", "recorder"),
    (m.NEGATIVE_LATENCY, "", "captured in the future"),
)
_USUAL: Final = ("recorder recorded",)


@dataclass(frozen=True)
class Target:
    """A running system, and the cameras that an attacker would like to impersonate."""

    system: RunningSystem
    layout: Layout
    cameras: tuple[CameraId, ...]
    mallory: Enrolment
    ways: dict[str, Tls | None]
    """The ways in which a stranger tries to connect."""

    @classmethod
    def of(cls, system: RunningSystem, cameras: int, folder: Path) -> Target:
        """Return the target once it runs, and create the attackers' credentials in `folder`."""
        layout = Layout(system.state)
        authority = Authority(layout.pki)
        names = tuple(CameraId(f"local/cam-{number}") for number in range(cameras))
        other = Authority.create(folder / "other" / "pki")
        ways: dict[str, Tls | None] = {"without TLS": None, "without a certificate": Tls(authority.pem)}
        for way, issued in (
            ("of another fleet", other.issue(names[0])),
            ("ended", authority.issue(names[0], days=-0.5)),
        ):
            file = folder / f"{way}.pem"
            write_text(file, issued.key + issued.certificate, private=True)
            ways[way] = Tls(authority.pem, file)
        return cls(system, layout, names, enrolled(layout, MALLORY), ways)

    @property
    def mqtt(self) -> tuple[str, int]:
        """Host and port of the MQTT broker."""
        return mqtt_of(self.system)

    @property
    def kafka(self) -> str:
        """Address of Kafka."""
        return str(self.system.roles()["kafka"]["listen"])

    def overheard(self, camera: CameraId, count: int) -> list[bytes]:
        """Return genuine frames of a camera from Kafka's disk, as an eavesdropper could have recorded them."""
        found = []
        for record in read_topic(self.layout.kafka_data, KafkaTopic.FRAMES):
            if record.key == camera.encode() and record.value:
                found.append(record.value)
                if len(found) == count:
                    break
        return found

    def own_frames(self, boot_id: int, count: int, first: int = 0, captured_ms: int | None = None) -> list[bytes]:
        """Return valid frames under Mallory's key, (32, 32, 3)."""
        at = captured_ms if captured_ms is not None else unix_ms()
        picture = np.random.default_rng(boot_id).integers(0, 256, (32, 32, 3), np.uint8)
        key = self.mallory.key
        return [encode_frame(key, boot_id, first + n, at, picture, Encoding(DROPPED)) for n in range(count)]

    def counters(self) -> dict[str, float]:
        """Return the counters that detect attacks, by the metric's short name and its label."""
        roles = self.system.roles()
        samples = Samples.scrape([entry["metrics"] for entry in roles.values() if entry.get("metrics")])
        found = {}
        for metric, label, short in _COUNTED:
            for value, count in samples.by(metric.name, label).items():
                found[f"{short} {value}".strip()] = count
        found["kafka's log"] = float(kafka_refusals(self.layout))
        return {name: count for name, count in found.items() if name not in _USUAL}

    def reconnects(self) -> float:
        """Return how often the good cameras have had to reconnect."""
        return Samples.scrape([self.system.roles()["fleet"]["metrics"]]).sum(m.CAMERA_RECONNECTS.name)

    def latencies_s(self, windows: Sequence[Window]) -> list[float]:
        """Return capture-to-record latencies, ascending, of the good cameras' frames captured in the windows."""
        return sorted(taken / 1000 for taken in self._frames("recorded_ms - captured_ms", windows))

    def frames_changed(self, windows: Sequence[Window]) -> int:
        """Return the number of these frames whose drop differs from the setting."""
        return sum(dropped != DROPPED for dropped in self._frames("dropped_per_block", windows))

    def silenced(self, quiet: Sequence[Window], during: Sequence[Window]) -> int:
        """Return the number of good cameras that captured less than half as many frames as in the `quiet` windows."""
        before, found = Counter(self._frames("camera", quiet)), Counter(self._frames("camera", during))
        return sum(2 * found[camera] < before[camera] for camera in self.cameras)

    def _frames(self, column: str, windows: Sequence[Window]) -> list[Any]:
        query = f"select {column} from frames where captured_ms >= ? and captured_ms < ? and camera != ?"
        return [value for window in windows for (value,) in rows(self.layout.database, query, *window, MALLORY)]


def kafka_refusals(layout: Layout) -> int:
    """Return the lines of Kafka's own log about rejected clients and denied requests."""
    logs = layout.folder.glob("kafka/**/server.log*")
    return sum(
        b"Failed authentication" in line or b"is Denied" in line or b"InvalidReceiveException" in line
        for log in logs
        for line in log.read_bytes().splitlines()
    )
