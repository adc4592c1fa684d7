"""A camera on another machine: `up --listen`, an enrolment, and nothing else; the other machine is 127.0.0.2."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.layout import Layout
from infra.local.ports import free_port
from infra.local.process import COMMAND
from infra.pki.enrolment import Enrolment
from infra.pki.roles import role_tls
from infra.reach import require_mqtt
from infra.up.background import RunningSystem
from tests.infra.test_camera_attach import write_video
from tests.waiting import wait_until

pytestmark = [pytest.mark.brokers, pytest.mark.slow]
CAMERA = "site/door"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[RunningSystem]:
    options = ("--cameras", 1, "--fps", 1, "--no-prometheus", "--listen", f"127.0.0.2:{free_port()}")
    with RunningSystem(tmp_path / "server" / "state", *options) as running:
        running.await_role("fleet")
        yield running


def pointillist(*arguments: object, folder: Path) -> str:
    """What a command prints, run in a folder and without the variables of this one."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("POINTILLIST_")}
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=clean, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def recorded(layout: Layout) -> int:
    with sqlite3.connect(f"file:{layout.database}?mode=ro", uri=True) as connection:
        return int(connection.execute("select count(*) from frames where camera = ?", (CAMERA,)).fetchone()[0])


def test_a_camera_with_only_its_enrolment_is_recorded(system: RunningSystem, tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.mkdir()
    layout = Layout(system.state)
    pointillist("enroll", CAMERA, "--state", system.state, "--out", device / "door.enrolment", folder=tmp_path)
    broker = Enrolment.read(device / "door.enrolment").mqtt
    assert broker is not None
    assert broker.startswith("127.0.0.2:")
    write_video(device / "door.mp4")
    pointillist(
        "camera", "attach", "door.mp4", "--enrolment", "door.enrolment", "--spool", "spool", "--fps", "5",
        "--seconds", "5", folder=device,
    )  # fmt: skip
    wait_until(lambda: recorded(layout) >= 8, "frames of the camera in the database", within_s=60, every_s=0.2)
    # The roles of this machine go on by loopback.
    host, _, port = system.roles()["mosquitto"]["listen"].rpartition(":")
    assert host == "127.0.0.1"
    require_mqtt((host, int(port)), 5, role_tls(layout.pki, "health"))
    system.interrupt()
    system.finish()
