"""A secure broker, a camera list with enrolments, and one `camera run` on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.cameras.bridge import ConfirmingBridge
from benchmarks.harness.services import started
from infra.local.mosquitto import Mosquitto
from infra.local.process import COMMAND, spawn
from infra.pki.authority import LOCAL_HOSTS, Authority
from infra.pki.enrolment import enroll
from infra.pki.roles import CLIENTS, SERVERS, Roles
from infra.state_folder import Layout
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing, derive_camera_key
from schemas.runtime.atomic_file import write_text

SITE: Final = "bench"
END_S: Final = 60.0
"""Longest wait for `camera run` to end."""
_SECRET: Final = bytes(range(32))

Camera = Mapping[str, Any]


@dataclass
class Site:
    """The parts of a scene: its cameras, as the file names them, and the bridge that receives their frames."""

    folder: Path
    bridge: ConfirmingBridge
    authority: Authority
    broker: str
    defaults: Mapping[str, Any]
    cameras: dict[str, Camera] = field(default_factory=dict)

    def camera(self, name: str) -> CameraId:
        """Return the camera's full identifier."""
        return CameraId(f"{SITE}/{name}")

    def write(self) -> None:
        """Enrol new cameras, and write the file."""
        for name in self.cameras:
            file = self.folder / "enrolments" / f"{name}.enrolment"
            if not file.exists():
                enroll(self.authority, derive_camera_key(_SECRET, self.camera(name)), file, self.broker)
        entries = [{"name": name, **camera} for name, camera in self.cameras.items()]
        document = {"site": SITE, "enrolments": "enrolments", "defaults": dict(self.defaults), "cameras": entries}
        write_text(self.file, yaml.safe_dump(document))

    @property
    def file(self) -> Path:
        """The camera list."""
        return self.folder / "cameras.yaml"

    def phase(self, name: str) -> tuple[str, str]:
        """Return the phase and reason of a camera in `cameras.json`."""
        try:
            found = json.loads((self.folder / "spools" / "cameras.json").read_text()).get(self.camera(name), {})
        except FileNotFoundError:
            return "", ""
        return found.get("phase", ""), found.get("detail", "")

    @contextmanager
    def running(self) -> Iterator[CameraRun]:
        """Run `pointillist camera run` until the end of the block, then stop it."""
        log = self.folder / "camera-run.log"
        command = [*COMMAND, "camera", "run", str(self.file), "--spool", str(self.folder / "spools")]
        with log.open("wb") as out, spawn(command, out) as process:
            run = CameraRun(process, log)
            try:
                yield run
            finally:
                run.end()


@dataclass
class CameraRun:
    """One process and its output."""

    process: subprocess.Popen[bytes]
    log: Path

    def end(self) -> int:
        """Send SIGTERM, and SIGKILL to a command that hangs. Return the exit status."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
        try:
            return self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log events with this name."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]


@contextmanager
def site(folder: Path, defaults: Mapping[str, Any]) -> Iterator[Site]:
    """Start a broker with TLS and access rights, the fleet's certificate authority, and a bridge that confirms."""
    layout = Layout(folder / "fleet")
    authority = Authority.create(layout.pki)
    Roles(authority).ensure((*SERVERS, *CLIENTS), LOCAL_HOSTS)
    with (
        started(Mosquitto(layout.folder, pki=layout.pki)) as mosquitto,
        ConfirmingBridge(layout, (mosquitto.host, mosquitto.port), KeyRing(_SECRET)) as bridge,
    ):
        yield Site(folder, bridge, authority, mosquitto.listen, defaults)
