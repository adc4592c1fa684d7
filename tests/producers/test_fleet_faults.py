"""Failures of single cameras: the rest of a fleet continues, and so does a fleet next to an attached camera."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from infra.local.mosquitto import Mosquitto
from infra.state_folder import Layout
from producers.camera.camera import Camera
from producers.camera.camera_settings import CameraSettings
from producers.fleet.camera_spec import CameraSpec
from producers.fleet.first_start import fleet_started
from producers.fleet.fleet import FleetOutcome
from producers.fleet.fleet_ticker import FleetTicker
from producers.fleet.limits import allow_open_files
from producers.fleet.phase_report import PhaseReport
from producers.fleet.real import run_camera
from producers.fleet.supervisor import CameraSupervisor, TaskPhase
from producers.metrics import Instruments
from producers.sources.settings import SourceSettings
from producers.spool import Spool
from producers.spool.files import OPEN_FILES
from producers.spool.folder import read_ahead, spool_root
from schemas.errors import SourceError, StateError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing, derive_camera_key
from schemas.runtime.health import Health
from tests.producers.fake_bridge import SECRET, FakeBridge
from tests.producers.fleet_rig import offline_camera, run, scenario_of
from tests.producers.publisher_rig import QUICK
from tests.waiting import PATIENCE_S, until


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npz"
    np.savez(path, images=np.zeros((10, 16, 16, 3), np.uint8))
    return path


async def two_cameras(mosquitto: Mosquitto, state: Path, images: Path, site: str, **options: Any) -> FleetOutcome:
    source = {"kind": "dataset", "file": images, "offset": 0}
    cameras: dict[str, object] = {"count": 2, "fps": 0, "source": source}
    return await run(scenario_of(site, cameras), mosquitto, state, **options)


async def attach(
    mosquitto: Mosquitto, state: Path, site: str, file: Path, generation: int = 0, **options: Any
) -> FleetOutcome:
    source = {"kind": "dataset", "file": file, "loop": "stop" in options}
    camera: dict[str, object] = {"name": "door", "fps": 20 if "stop" in options else 0, "source": source}
    [settings] = scenario_of(site, camera).cameras()
    key = KeyRing(SECRET).key(settings.camera_id, generation)
    spec = CameraSpec(settings, key, (mosquitto.host, mosquitto.port))
    arguments = {"registry": CollectorRegistry(), "health": Health(), "stop": asyncio.Event(), "link": QUICK, **options}
    return await run_camera(spec, state=state, **arguments)


@pytest.mark.brokers
async def test_an_unexpected_error_in_one_camera_is_logged_once_and_keeps_the_others_connected(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick = Camera.tick

    def fail(self: Camera, now: float) -> None:
        if self.settings.index == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        tick(self, now)

    monkeypatch.setattr(Camera, "tick", fail)
    with capture_logs() as logs:
        outcome = await two_cameras(mosquitto, state_dir, images, site, drain_s=5.0)
    assert (outcome.frames_published, outcome.frames_pending) == (20, 10)
    assert {identity.camera_id.partition("/")[2] for identity in bridge.confirmed} >= {"cam-01"}
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["camera_tick_failed"]


@pytest.mark.brokers
async def test_a_failing_report_is_logged_once_and_ends_no_camera(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: FleetTicker, *_: object) -> None:
        raise RuntimeError("a gauge that cannot be set")

    monkeypatch.setattr(FleetTicker, "_report", fail)
    with capture_logs() as logs:
        outcome = await two_cameras(mosquitto, state_dir, images, site)
    assert outcome == FleetOutcome(True, frames_published=20, frames_pending=0, frames_shed=0, frames_skipped=0)
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["fleet_report_failed"]


@pytest.mark.brokers
async def test_a_spool_that_cannot_be_closed_at_once_does_not_end_the_fleet(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, close = Spool.finish, Spool.close
    failed: list[str] = []

    def fail_at_first(self: Spool) -> None:
        if self.camera_id.endswith("cam-00") and len(failed) < 3:
            failed.append(self.camera_id)
            raise StateError("the disk is full")
        finish(self)

    def fail(self: Spool) -> None:
        close(self)
        raise StateError("the disk is full")

    monkeypatch.setattr(Spool, "finish", fail_at_first)
    monkeypatch.setattr(Spool, "close", fail)
    outcome = await two_cameras(mosquitto, state_dir, images, site)
    assert outcome == FleetOutcome(True, frames_published=20, frames_pending=0, frames_shed=0, frames_skipped=0)
    assert len(failed) == 3


@pytest.mark.brokers
async def test_an_attached_file_starts_over_after_a_clean_end_and_resumes_after_a_kill(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, images: Path
) -> None:
    fleet_started(state_dir).write_text('{"started_ms": 1}')  # of the fleet in the same folder
    for _ in range(2):
        assert (await attach(mosquitto, state_dir, site, images)).frames_published == 10
    assert fleet_started(state_dir).read_text() == '{"started_ms": 1}'
    mark = spool_root(state_dir) / site / "door" / "started.json"
    assert not mark.exists()

    mark.write_text('{"started_ms": 1}')  # as a killed process of an earlier release leaves it
    assert (await attach(mosquitto, state_dir, site, images)).frames_published == 0


@pytest.mark.brokers
async def test_after_a_kill_another_file_begins_at_its_first_frame(
    site: str,
    mosquitto: Mosquitto,
    bridge: FakeBridge,
    state_dir: Path,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("producers.fleet.first_start.Start.forget", lambda _: None)  # a killed process leaves its note
    other = images.with_name("other.npz")
    other.write_bytes(images.read_bytes())
    files = [images, images, other, other]
    assert [(await attach(mosquitto, state_dir, site, file)).frames_published for file in files] == [10, 0, 10, 0]
    rotated = [await attach(mosquitto, state_dir, site, file, 1, drain_s=0.0) for file in (other, images)]
    assert [each.frames_published for each in rotated] == [0, 10], "a new key alone is no other file"

    monkeypatch.chdir(images.parent)
    mark = spool_root(state_dir) / site / "door" / "started.json"
    mark.write_text('{"started_ms": 1}')  # of an earlier release
    named = [images, Path(images.name), other]
    published = [(await attach(mosquitto, state_dir, site, file, 1, drain_s=0.0)).frames_published for file in named]
    assert published == [0, 0, 10]


@pytest.mark.brokers
@pytest.mark.parametrize("damage", [b"", b'{"started_ms": 1', b"[]", b'{"started_ms": 1e999}', None])
async def test_a_damaged_note_of_the_start_is_replaced_and_the_camera_continues(
    site: str,
    mosquitto: Mosquitto,
    bridge: FakeBridge,
    state_dir: Path,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: bytes | None,
) -> None:
    await attach(mosquitto, state_dir, site, images)
    mark = spool_root(state_dir) / site / "door" / "started.json"
    mark.write_bytes(b'{"started_ms": 1}' if damage is None else damage)
    read_text, damaged = Path.read_text, mark.read_bytes()

    def unreadable(path: Path, *arguments: Any) -> str:
        if damage is None and path == mark and mark.read_bytes() == damaged:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_text(path, *arguments)

    monkeypatch.setattr(Path, "read_text", unreadable)
    kept: list[str] = []
    monkeypatch.setattr("producers.fleet.first_start.Start.forget", lambda start: kept.append(start.mark.read_text()))
    with capture_logs() as logs:
        assert (await attach(mosquitto, state_dir, site, images)).frames_published == 0
    assert [each["camera"] for each in logs if each["event"] == "damaged_start_replaced"] == [f"{site}/door"]
    assert json.loads(kept[0])["started_ms"] > 1


@pytest.mark.brokers
@pytest.mark.parametrize(("resume", "published"), [(False, 1), (True, 0)])
def test_a_fleet_on_a_finished_folder_starts_another_run_unless_it_resumes(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, tmp_path: Path, resume: bool, published: int
) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(f"site: {site}\ncameras:\n  - {{name: door, fps: 20}}\n")
    layout = Layout(state_dir)
    layout.issue_key(CameraId(f"{site}/door"), secret=SECRET)
    fleet_started(state_dir).write_text('{"started_ms": 1}')  # as `up` leaves it
    command = [sys.executable, "-m", "infra.cli", "fleet", "--scenario", str(scenario), "--state", str(state_dir)]
    command += ["--mqtt", f"{mosquitto.host}:{mosquitto.port}", "--seconds", "3"]
    done = subprocess.run([*command, *["--resume"] * resume], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    confirmed = {identity for identity in bridge.confirmed if identity.camera_id == f"{site}/door"}
    assert (len(confirmed) >= 10) == published


@pytest.mark.brokers
async def test_a_fleet_with_ended_sources_publishes_them_again_only_in_another_run(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, images: Path
) -> None:
    published = [
        (await two_cameras(mosquitto, state_dir, images, site, again=again)).frames_published
        for again in (False, False, True)
    ]
    assert published == [20, 0, 20]


@pytest.mark.brokers
async def test_an_attached_source_must_open_at_every_start(
    site: str, mosquitto: Mosquitto, state_dir: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(SourceError, match=r"nothing\.npz"):
            await attach(mosquitto, state_dir, site, tmp_path / "nothing.npz")
        (spool_root(state_dir) / site / "door" / "started.json").write_text('{"started_ms": 1}')


def test_a_large_fleet_raises_its_limit_of_open_files_up_to_the_systems() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES.limit
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        allow_open_files(11)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, hard)
        allow_open_files(5)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, hard)
        if hard != resource.RLIM_INFINITY:
            allow_open_files(hard)
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
            allow_open_files((hard - 512) // 2)
            # One connection for each camera, and the same number of files for all spools together.
            assert OPEN_FILES.limit == pytest.approx((hard - 512) // 2, abs=1)
    finally:
        OPEN_FILES.limit = files
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.brokers
async def test_an_attached_camera_logs_each_phase_once_and_a_fleet_logs_none(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, images: Path
) -> None:
    with capture_logs() as logs:
        await two_cameras(mosquitto, state_dir, images, site)
    assert not [line for line in logs if line["event"] == "camera_phase_changed"]
    stop = asyncio.Event()
    with capture_logs() as logs:
        running = asyncio.create_task(attach(mosquitto, state_dir, site, images, stop=stop))
        async with asyncio.timeout(PATIENCE_S):
            while not [line for line in logs if line.get("phase") == "capturing" and line.get("width")]:
                await asyncio.sleep(0.05)
        stop.set()
        await running
    phases = [
        (line["phase"], line["width"], line["height"]) for line in logs if line["event"] == "camera_phase_changed"
    ]
    assert ("capturing", 16, 16) in phases
    assert len(phases) == len(set(phases))


def test_a_report_that_cannot_be_written_is_written_as_soon_as_possible(tmp_path: Path) -> None:
    file = tmp_path / "state" / "cameras.json"
    file.parent.write_text("a file in place of the folder")
    tasks = {CameraId("lab/door"): (TaskPhase.CAPTURING, "", None)}
    report = PhaseReport(lambda: tasks, Instruments(CollectorRegistry()), Health(), file, logs=False)
    with capture_logs() as logged:
        for _ in range(3):
            report.update()
    assert [line["event"] for line in logged] == ["camera_report_not_written"]
    file.parent.unlink()
    report.update()
    assert json.loads(file.read_text()) == {"lab/door": {"phase": "capturing", "detail": ""}}


async def test_a_slow_disk_under_one_spool_does_not_stop_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, release, opened = threading.Event(), threading.Event(), []

    def read_slowly(folder: Path) -> None:
        read_ahead(folder)
        opened.append(folder)
        reading.set()
        assert release.wait(PATIENCE_S)

    monkeypatch.setattr("producers.fleet.supervisor.read_ahead", read_slowly)
    camera_id = CameraId("lab/door")
    key = derive_camera_key(b"a fleet secret of thirty-two byte", camera_id)
    settings = CameraSettings(camera_id=camera_id, fps=20.0, source=SourceSettings(kind="scene"))
    spec = CameraSpec(settings, key, ("127.0.0.1", 9))
    folder = tmp_path / "spool"
    supervisor = CameraSupervisor(spec, folder, lambda _: offline_camera(settings, key, folder), marks_start=False)
    supervisor.start()
    await until(reading.is_set, "the reading of the spool")  # `until` itself runs on the loop
    assert (opened, supervisor.camera) == ([folder], None)
    release.set()
    await until(lambda: supervisor.camera is not None, "an open camera")
    await supervisor.cancel()
    await supervisor.close()


def test_every_file_of_a_spool_is_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = Path.open

    def noted(path: Path, *arguments: Any, **options: Any) -> Any:
        read.append(path.name)
        if path.name == "b":
            raise PermissionError
        return real(path, *arguments, **options)

    for name in "abc":
        (tmp_path / name).write_bytes(bytes(3 * 2**20))
    monkeypatch.setattr(Path, "open", noted)
    read_ahead(tmp_path)
    assert sorted(read) == ["a", "b", "c"]
    read_ahead(tmp_path / "none")
