"""The system that is attacked: where it is, what an attacker has, and what of it changes."""

from __future__ import annotations

import math
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from benchmarks.attacks._enrolled import enrolled, mqtt_of
from benchmarks.system import RunningSystem
from infra.kafka_files import read_topic
from infra.layout import Layout
from infra.pki.authority import Authority, write_private
from infra.pki.enrolment import Enrolment
from infra.up.scrape import Samples
from schemas import metrics as m
from schemas.frame import Encoding, encode_frame
from schemas.identity import CameraId
from schemas.topics import KafkaTopic
from schemas.transport.access import Tls

DROPPED: Final = 16
"""Of the 64 pixels of a block, what the cameras are set to drop."""
MALLORY: Final = CameraId("local/mallory")
"""A camera with a valid enrolment, in an attacker's hands."""

Window: TypeAlias = tuple[int, int]
"""From when to before when, in Unix milliseconds."""
_COUNTED: Final = (
    (m.MQTT_REFUSALS, "what", "mqtt"),
    (m.BRIDGE_OVER_QUOTA, "camera_id", "over quota"),
    (m.DEAD_LETTERS, "reason", "dead letter"),
    (m.REFUSED, "reason", "processor"),
    (m.RECORDED, "outcome", "recorder"),
    (m.NEGATIVE_LATENCY, "", "captured in the future"),
)
_USUAL: Final = ("recorder recorded",)


@dataclass(frozen=True)
class Target:
    """A running system, and whose place an attacker would like to take."""

    system: RunningSystem
    layout: Layout
    cameras: tuple[CameraId, ...]
    mallory: Enrolment
    ways: dict[str, Tls | None]
    """How a stranger tries to get in."""

    @classmethod
    def of(cls, system: RunningSystem, cameras: int, folder: Path) -> Target:
        """Once it runs; makes what the attackers have in `folder`."""
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
            write_private(file, issued.key + issued.certificate)
            ways[way] = Tls(authority.pem, file)
        return cls(system, layout, names, enrolled(layout, MALLORY), ways)

    @property
    def mqtt(self) -> tuple[str, int]:
        """Where the MQTT broker listens."""
        return mqtt_of(self.system)

    @property
    def kafka(self) -> str:
        """Where Kafka listens."""
        return str(self.system.roles()["kafka"]["listen"])

    def overheard(self, camera: CameraId, count: int) -> list[bytes]:
        """Genuine frames of a camera, as somebody had recorded them on their way: from Kafka's disk."""
        found = []
        for record in read_topic(self.layout.kafka_data, KafkaTopic.FRAMES):
            if record.key == camera.encode() and record.value:
                found.append(record.value)
                if len(found) == count:
                    break
        return found

    def own_frames(self, boot_id: int, count: int, first: int = 0, captured_ms: int | None = None) -> list[bytes]:
        """Valid frames under Mallory's key, (32, 32, 3)."""
        at = captured_ms if captured_ms is not None else time.time_ns() // 10**6
        picture = np.random.default_rng(boot_id).integers(0, 256, (32, 32, 3), np.uint8)
        key = self.mallory.key
        return [encode_frame(key, boot_id, first + n, at, picture, Encoding(DROPPED)) for n in range(count)]

    def counters(self) -> dict[str, float]:
        """What is counted of attacks, by the metric's short name and its label."""
        roles = self.system.roles()
        samples = Samples.scrape([entry["metrics"] for entry in roles.values() if entry.get("metrics")])
        found = {}
        for metric, label, short in _COUNTED:
            for value, count in samples.by(metric.name, label).items():
                found[f"{short} {value}".strip()] = count
        found["kafka's log"] = float(kafka_refusals(self.layout))
        return {name: count for name, count in found.items() if name not in _USUAL}

    def reconnects(self) -> float:
        """Connections that the good cameras have had to make again."""
        return Samples.scrape([self.system.roles()["fleet"]["metrics"]]).sum(m.CAMERA_RECONNECTS.name)

    def latencies_s(self, windows: Sequence[Window]) -> list[float]:
        """Capture to record of the good cameras' frames that were captured then, in order of size."""
        return sorted(taken / 1000 for taken in self._frames("recorded_ms - captured_ms", windows))

    def frames_changed(self, windows: Sequence[Window]) -> int:
        """Those of them that drop other than set."""
        return sum(dropped != DROPPED for dropped in self._frames("dropped_per_block", windows))

    def _frames(self, column: str, windows: Sequence[Window]) -> list[int]:
        query = f"select {column} from frames where captured_ms >= ? and captured_ms < ? and camera != ?"
        found: list[int] = []
        with sqlite3.connect(f"file:{self.layout.database}?mode=ro", uri=True) as connection:
            for window in windows:
                found += [row[0] for row in connection.execute(query, (*window, MALLORY))]
        return found


def kafka_refusals(layout: Layout) -> int:
    """Lines of Kafka's own log about a client that it has not let in, or not let do what it asked for."""
    logs = layout.folder.glob("kafka/**/server.log*")
    return sum(
        b"Failed authentication" in line or b"is Denied" in line or b"InvalidReceiveException" in line
        for log in logs
        for line in log.read_bytes().splitlines()
    )


def quantile(values: Sequence[float], q: float) -> float | None:
    """Of values in order of size; None of none."""
    return values[math.ceil(q * len(values)) - 1] if values else None


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for one run."""
    return tempfile.TemporaryDirectory(prefix="pointillist-attacks-")
