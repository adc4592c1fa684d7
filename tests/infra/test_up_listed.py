"""The command `up` with a list of real cameras, with several fleets, and without cameras."""

from __future__ import annotations

import io
import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from rich.console import Console

from consumers.database.engine import open_engine
from consumers.database.tables import ledgers, metadata
from infra.local.ports import Ports
from infra.local.role_table import RoleTable
from infra.pki.authority import LOCAL_HOSTS, Authority
from infra.pki.roles import Roles
from infra.state_folder import Layout
from infra.state_folder.environment import Environment
from infra.up.interrupts import interrupts
from infra.up.preparation import fleet_parts
from infra.up.processes import LocalRoles, RoleProcess
from infra.up.run import _Run, run_up
from infra.up.settings import (
    UpSettings,
    bundle_folder,
    camera_limits,
    listed_document,
    scenario_document,
    with_bundle_of,
)
from infra.up.system_state import camera_states
from infra.up.table import LiveTable
from producers.camera.role_settings import CameraRunSettings
from producers.fleet.camera_file import load_camera_file
from producers.fleet.part import Part
from producers.simulation.fleet_settings import FleetSettings
from producers.simulation.scenario import parse_scenario
from schemas.clock import unix_ms
from schemas.errors import ConfigError, SourceError
from schemas.identity import CameraId
from schemas.pointillist_pb2 import OFFLINE
from tests.infra.test_system_state import report, write_database

SOURCE = {"address": "rtsp://127.0.0.1:9/new"}
LIST = """
site: home
cameras:
- {name: "gate-{index}", count: 2, first: 3, fps: 4, source: {address: "rtsp://anna:secret@127.0.0.1:9/live"}}
- {name: hall, source: {address: "rtsp://127.0.0.1:9/hall"}}
"""


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    file = tmp_path / "cameras.yaml"
    file.write_text(LIST)
    return file


def test_the_run_stores_the_names_of_listed_cameras_and_no_address(listed: Path) -> None:
    cameras = [each.settings for each in load_camera_file(listed).values()]
    document = listed_document(cameras)
    assert [each.camera_id for each in parse_scenario(document).cameras()] == [
        "home/gate-3",
        "home/gate-4",
        "home/hall",
    ]
    assert "127.0.0.1" not in json.dumps(document)


def test_listed_cameras_run_by_camera_run_with_valid_settings(tmp_path: Path, listed: Path) -> None:
    layout = Layout(tmp_path / "state")
    settings = UpSettings(cameras_file=listed, plain=True, seconds=7)
    (role,) = LocalRoles(settings, layout, Ports(layout.folder), "127.0.0.1:1", "127.0.0.1:2").fleets(1)
    assert isinstance(role.process, RoleProcess)
    assert role.process.arguments[:3] == ["camera", "run", "--config"]
    read = CameraRunSettings.model_validate(tomllib.loads(Path(role.process.arguments[3]).read_text()))
    assert (read.cameras, read.seconds, read.state) == (listed, 7, layout.folder)
    assert bundle_folder(settings).name != "scene"


@pytest.mark.parametrize(("name", "value"), [("fps", 3), ("spool_bytes", 2**30)])
def test_a_setting_of_simulated_cameras_next_to_a_list_is_rejected(listed: Path, name: str, value: int) -> None:
    with pytest.raises(ValidationError, match=f"{name}: expected no value with cameras_file"):
        UpSettings.model_validate({"cameras_file": listed, name: value})


def test_a_list_of_unreachable_cameras_is_one_error_line_before_any_broker_starts(tmp_path: Path, listed: Path) -> None:
    settings = UpSettings(cameras_file=listed, state=tmp_path / "state", prometheus=False)
    with pytest.raises(SourceError, match=r"home/gate-3: .*2 other cameras do not answer either") as error:
        run_up(settings, Environment(), LiveTable(Console(file=io.StringIO())))
    assert "secret" not in str(error.value)
    assert not list((tmp_path / "state").glob("mosquitto*"))
    assert "\n" not in str(error.value)


@pytest.fixture
def run(tmp_path: Path, listed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Run]:
    """Yield a run of `listed` that has not started its roles, on the state folder `state`."""
    monkeypatch.setattr("infra.up.run.check_sources", lambda *_: None)
    with prepared(tmp_path / "state", listed) as found:
        yield found


@contextmanager
def prepared(state: Path, listed: Path) -> Iterator[_Run]:
    live = LiveTable(Console(file=io.StringIO()))
    cameras = [each.settings for each in load_camera_file(listed).values()]
    with RoleTable(state) as roles, interrupts() as asked:
        settings = UpSettings(cameras_file=listed, state=state, plain=True)
        found = _Run(settings, Layout(state), roles, live, asked)
        found.prepare(cameras, listed_document(cameras))
        yield found


def change_list(file: Path, *names: str) -> None:
    file.write_text(yaml.safe_dump({"site": "home", "cameras": [{"name": name, "source": SOURCE} for name in names]}))


def test_a_camera_that_is_added_to_the_list_and_removed_is_never_an_attached_one(run: _Run, listed: Path) -> None:
    layout = run._layout
    engine = open_engine(layout.database_url, writes=True)
    metadata.create_all(engine)
    values: dict[str, object] = dict.fromkeys((column.name for column in ledgers.columns), 0)
    frames = {"home/hall": 100, "home/new": 10, "porch/attached": 1}
    with engine.begin() as connection:
        for camera, count in frames.items():
            row = {"camera": camera, "boot": 1, "started_ms": run._started_ms, "next": count, "closed": False}
            connection.execute(ledgers.insert(), values | {"message": b""} | row)
    engine.dispose()
    assert run._attached_frames() == 11
    change_list(listed, "new")
    assert run._attached_frames() == 1
    change_list(listed, "other")
    assert run._attached_frames() == 1
    listed.write_text("unfinished: [")
    assert run._attached_frames() == 1


def test_an_unchanged_list_is_not_read_again(run: _Run, listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings: list[Path] = []

    def load(file: Path) -> dict[str, object]:
        readings.append(file)
        return {}

    monkeypatch.setattr("infra.up.run.load_camera_file", load)
    for names in (("hall",), ("hall", "new")):
        change_list(listed, *names)
        for _ in range(3):
            run._include_added()
    assert readings == [listed, listed]


def test_a_stop_awaits_the_frames_of_a_camera_that_was_added_to_the_list(
    run: _Run, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    awaited: list[CameraId] = []

    def count(_layout: Layout, _since_ms: int, of: frozenset[CameraId]) -> int:
        awaited.extend(of)
        return 0

    monkeypatch.setattr("infra.audit.audit.unsettled", count)
    change_list(listed, "hall", "new")
    run.drain()
    assert sorted(awaited) == ["home/gate-3", "home/gate-4", "home/hall", "home/new"]


def test_the_certificate_of_a_camera_that_was_added_to_the_list_is_renewed(
    run: _Run, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed: list[CameraId] = []
    monkeypatch.setattr("infra.up.renewal.renew_enrolment", lambda _layout, _authority, camera: renewed.append(camera))
    Roles(Authority.create(run._layout.pki)).issue("bridge", LOCAL_HOSTS)
    change_list(listed, "hall", "new")
    run._attached_frames()
    run._renewal.check()
    assert sorted(renewed) == ["home/gate-3", "home/gate-4", "home/hall", "home/new"]


def test_a_camera_that_was_added_to_the_list_and_removed_is_forgotten_by_the_next_run(
    tmp_path: Path, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.up.run.check_sources", lambda *_: None)
    layout, gone_ms = Layout(tmp_path / "state"), unix_ms() - 60_000
    with prepared(layout.folder, listed) as first:
        change_list(listed, "hall", "new")
        first._attached_frames()
        change_list(listed, "hall")
    gone = [report(name, OFFLINE)._replace(state_ms=gone_ms, seen_ms=gone_ms) for name in ("home/hall", "home/new")]
    write_database(layout, gone, {})
    assert [each.name for each in camera_states(layout)] == ["home/hall", "home/new"]
    with prepared(layout.folder, listed):
        assert [each.name for each in camera_states(layout)] == ["home/hall"]


def test_a_large_fleet_is_divided_over_processes_with_valid_settings(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    roles = LocalRoles(UpSettings(plain=True), layout, Ports(layout.folder), "127.0.0.1:1", "127.0.0.1:2").fleets(2)
    files = [layout.role_settings(role.name) for role in roles]
    read = [FleetSettings.model_validate(tomllib.loads(file.read_text())) for file in files]
    assert [(role.name, each.own_part) for role, each in zip(roles, read, strict=True)] == [
        ("fleet-1", Part(1, 2)),
        ("fleet-2", Part(2, 2)),
    ]
    assert len({role.metrics for role in roles}) == 2


@pytest.mark.parametrize(
    ("option", "cameras", "cores", "parts"),
    [(None, 1_999, 8, 1), (None, 10_000, 2, 2), (None, 10_000, 8, 5), (3, 3, 1, 3)],
)
def test_the_default_number_of_fleets_follows_cameras_and_cores(
    monkeypatch: pytest.MonkeyPatch, option: int | None, cameras: int, cores: int, parts: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert fleet_parts(UpSettings(fleets=option), cameras) == parts


def test_more_fleets_than_cameras_are_one_error_line() -> None:
    with pytest.raises(ConfigError, match=r"^fleets: expected at most 8, one for each camera, got 9\. Lower it\.$"):
        fleet_parts(UpSettings(fleets=9), 8)


def test_a_run_without_cameras_has_the_network_of_real_cameras_and_the_bridge_s_default_quota(tmp_path: Path) -> None:
    settings = UpSettings(cameras=0, plain=True)
    assert scenario_document(settings, None)["cameras"] == []
    assert bundle_folder(with_bundle_of(scenario_document(settings, None), settings)).name != "scene"
    assert camera_limits(settings, []) is None
    layout = Layout(tmp_path / "state")
    roles = LocalRoles(settings, layout, Ports(layout.folder), "127.0.0.1:1", "127.0.0.1:2")
    assert roles.fleets(fleet_parts(settings, 0)) == []
    [bridge] = roles.bridges()
    read = tomllib.loads(layout.role_settings(bridge.name).read_text())
    assert (read["camera_rates"], "camera_bytes_per_s" in read) == (str(layout.camera_rates), False)


def test_a_setting_of_cameras_in_a_run_without_cameras_is_rejected() -> None:
    with pytest.raises(ValidationError, match="source: expected no value with cameras = 0"):
        UpSettings(cameras=0, source="cifar10")
