"""A roster that a test runs, and the camera list that it follows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from benchmarks.harness.rtsp import counted_number
from infra.local.mosquitto import Mosquitto
from producers.fleet.camera_file import parse_camera_file
from producers.fleet.camera_spec import CameraSpec, CameraSpecs
from producers.fleet.fleet import FleetOutcome
from producers.fleet.real import run_listed_cameras
from schemas.errors import ConfigError, WireError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import decode_picture, open_message
from schemas.pointillist_pb2 import State, Status
from schemas.runtime.health import Health
from schemas.topics import Channel, mqtt_topic
from tests.producers.fake_bridge import SECRET, FakeBridge
from tests.producers.publisher_rig import QUICK


class ListInMemory:
    """A `CameraList` in memory that a test changes."""

    def __init__(self, broker: tuple[str, int], site: str, folder: Path, **defaults: object) -> None:
        self.site = site
        self.cameras: dict[str, dict[str, Any]] = {}
        self.rejected: dict[CameraId, str] = {}
        self.error = ""
        self.defect: Exception | None = None
        self.after_read: Callable[[], None] | None = None
        self._broker = broker
        self._folder = folder
        self._defaults = defaults
        self._changes = 0

    def mark_changed(self) -> None:
        """Give the list a new stamp."""
        self._changes += 1

    def stamp(self) -> Hashable:
        return self._changes

    def read(self) -> CameraSpecs:
        if self.defect is not None:
            raise self.defect
        if self.error:
            raise ConfigError(self.error)
        entries = [{"name": name, **options} for name, options in self.cameras.items()]
        values = {"site": self.site, "defaults": self._defaults, "cameras": entries}
        keys = KeyRing(SECRET)
        members = {
            name: CameraSpec(listed.settings, keys.current(name), self._broker)
            for name, listed in parse_camera_file(values, self._folder, "cameras.yaml").items()
        }
        if self.after_read is not None:
            self.after_read()
        return CameraSpecs(members, dict(self.rejected))


@dataclass
class RunningRoster:
    """A running roster: its list, its reports and the frames at the bridge."""

    cameras: ListInMemory
    bridge: FakeBridge
    health: Health
    registry: CollectorRegistry
    stop: asyncio.Event
    report: Path
    outcome: FleetOutcome | None = None
    keys: KeyRing = field(default_factory=lambda: KeyRing(SECRET))
    task: asyncio.Task[FleetOutcome] | None = None

    def _check_running(self) -> None:
        """Raise the exception that ended the roster, if it has ended."""
        if self.task is not None and self.task.done():
            self.task.result()

    def reported(self, name: str) -> tuple[str, str]:
        """Return the phase and reason of a camera in the report; empty before the report has it."""
        self._check_running()
        report = json.loads(self.report.read_text()) if self.report.exists() else {}
        found = report.get(self.id(name), {})
        return found.get("phase", ""), found.get("detail", "")

    def id(self, name: str) -> CameraId:
        return CameraId(f"{self.cameras.site}/{name}")

    def frames(self, name: str) -> int:
        """Return the number of a camera's frames at the bridge."""
        self._check_running()
        return sum(identity.camera_id == self.id(name) for identity in list(self.bridge.frames))

    def boots(self, name: str) -> set[int]:
        return {identity.boot_id for identity in list(self.bridge.frames) if identity.camera_id == self.id(name)}

    def status(self, name: str) -> tuple[State, str] | None:
        """Return the state and detail of the camera's retained status."""
        self._check_running()
        payload = self.bridge.topics.get(mqtt_topic(self.id(name), Channel.STATUS))
        try:
            status = open_message(Status, self.id(name), payload, self.keys) if payload else None
        except WireError:
            return None
        return (status.state, status.detail) if status is not None else None

    def numbers(self, name: str) -> list[int]:
        """Return the numbers in a camera's pictures, in the order of its frames."""
        key = self.keys.current(self.id(name))
        mine = sorted((i, frame) for i, frame in self.bridge.frames.items() if i.camera_id == self.id(name))
        return [counted_number(decode_picture(key, frame)[0]) for _, frame in mine]

    def value(self, metric: str, **labels: str) -> float | None:
        """Return the value of a metric."""
        self._check_running()
        return self.registry.get_sample_value(metric, labels)


@asynccontextmanager
async def running(
    cameras: ListInMemory, mosquitto: Mosquitto, bridge: FakeBridge, state: Path, drain_s: float = 10.0
) -> AsyncIterator[RunningRoster]:
    """Run a roster until the test is over or sets `stop`; afterwards `outcome` is set."""
    roster = RunningRoster(cameras, bridge, Health(), CollectorRegistry(), asyncio.Event(), state / "cameras.json")
    roster.task = task = asyncio.create_task(
        run_listed_cameras(
            cameras,
            state=state,
            registry=roster.registry,
            health=roster.health,
            stop=roster.stop,
            drain_s=drain_s,
            link=QUICK,
            report=roster.report,
        )
    )
    try:
        yield roster
    finally:
        roster.stop.set()
        roster.outcome = await task
