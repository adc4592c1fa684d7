"""Offline cameras leave the lists: by the command `camera forget`, and when `up` starts with another scenario."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

import bundles
from consumers.cameras.state import State
from consumers.database.console_store import read_forgotten
from consumers.database.engine import open_engine
from consumers.database.tables import boots
from consumers.database.tables import camera_states as saved_states
from infra.cli.access import console_store
from infra.local.role_table import RoleTable
from infra.state_folder import Layout
from infra.up.interrupts import interrupts
from infra.up.preparation import console_places
from infra.up.run import _Run
from infra.up.settings import UpSettings
from infra.up.system_state import camera_states, role_states
from infra.up.table import LiveTable
from producers.simulation.scenario import parse_scenario
from schemas.errors import ConfigError, SourceError, StateError
from schemas.pointillist_pb2 import ENDED, OFFLINE, ONLINE
from tests.infra.command_line import call
from tests.infra.test_system_state import report, write_database


def write_cameras(layout: Layout, *names: str, seen_ms: int) -> None:
    """Write cameras that went offline at `seen_ms`, Unix time in milliseconds."""
    write_database(layout, [report(name, OFFLINE)._replace(state_ms=seen_ms, seen_ms=seen_ms) for name in names], {})


def listed(layout: Layout) -> list[str]:
    return [each.name for each in camera_states(layout)]


def forget(name: str, layout: Layout) -> None:
    call("camera", "forget", name, "--state", layout.folder)


def test_a_forgotten_camera_is_listed_again_after_its_next_message(tmp_path: Path) -> None:
    layout, now_ms = Layout(tmp_path / "state"), time.time_ns() // 10**6
    write_cameras(layout, "local/door", "porch/gate", seen_ms=now_ms - 60_000)
    assert listed(layout) == ["local/door", "porch/gate"]
    forget("porch/gate", layout)
    forget("door", layout)
    assert listed(layout) == []
    layout.database.unlink()
    write_cameras(layout, "local/door", "porch/gate", seen_ms=now_ms + 60_000)
    assert listed(layout) == ["local/door", "porch/gate"]


def test_only_a_known_camera_outside_the_scenario_can_be_forgotten(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    with pytest.raises(StateError, match="expected a state folder"):
        forget("local/door", layout)
    now_ms = time.time_ns() // 10**6
    write_database(layout, [report("local/here")._replace(state_ms=now_ms, seen_ms=now_ms)], {"local/here": 0})
    for name, message in (
        ("local/none", r"local/none: expected a camera of `pointillist cameras --state .*`, got an unknown one"),
        ("local/cam-0", r"local/cam-0: expected a camera that `up` does not run itself, got one of "),
        ("no name", r"camera: expected site/camera of "),
    ):
        layout.scenario.write_text(yaml.safe_dump({"site": "local", "cameras": [{"name": "cam-0"}]}))
        with pytest.raises(ConfigError, match=message):
            forget(name, layout)


@pytest.mark.parametrize(
    ("state", "reported"),
    [(State.REVOKED, OFFLINE), (State.ALERT, OFFLINE), (State.REFUSED, ONLINE), (State.ENDED, ENDED)],
)
def test_a_camera_in_another_state_than_offline_can_be_forgotten_once_its_frames_stop(
    tmp_path: Path, state: State, reported: int
) -> None:
    for ago_s, is_silent in ((300, True), (1, False)):
        layout, now_ms = Layout(tmp_path / str(ago_s)), time.time_ns() // 10**6
        row = report("porch/gate", reported)._replace(state_ms=now_ms - 400_000, seen_ms=now_ms - 400_000)
        write_database(layout, [row], {})
        engine = open_engine(layout.database_url, writes=True)
        with engine.begin() as connection:
            last_ms = now_ms - 1000 * ago_s
            connection.execute(
                boots.insert(), {"camera": row.camera, "boot": 7, "frames": 5, "duplicates": 0, "last_ms": last_ms}
            )
            judged = {"camera": row.camera, "state": state.value, "reason": "", "since_ms": last_ms, "saved_ms": now_ms}
            connection.execute(saved_states.insert(), judged | {"patience_s": 10.0})
        engine.dispose()
        assert [each.state for each in camera_states(layout)] == [state]
        if is_silent:
            forget(row.camera, layout)
            assert listed(layout) == []
        else:
            with pytest.raises(ConfigError, match=f"expected a camera that is gone, got one that is {state}"):
                forget(row.camera, layout)


def prepare(state: Path, document: dict[str, object], **options: object) -> list[str]:
    """Run the preparation of `up` before it starts processes, and return the printed lines."""
    lines: list[str] = []
    live = LiveTable.__new__(LiveTable)
    live.print_line = lines.append  # type: ignore[method-assign, assignment]  # the name of the argument differs
    layout = Layout(state)
    with RoleTable(state) as roles, interrupts() as interrupted:
        settings = UpSettings.model_validate({"state": state, "plain": True} | options)
        run = _Run(settings, layout, roles, live, interrupted)
        run.prepare(parse_scenario(document).cameras(), document)
    return lines


def test_cameras_of_an_earlier_scenario_are_not_listed_in_a_run_without_them(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.folder.mkdir()
    earlier_ms = time.time_ns() // 10**6 - 60_000
    prepare(layout.folder, {"site": "local", "cameras": [{"name": "cam-{index}", "count": 3}]})
    write_cameras(layout, "local/cam-0", "local/cam-1", "local/cam-2", "yard/attached", seen_ms=earlier_ms)
    prepare(layout.folder, {"site": "local", "cameras": [{"name": "cam-0"}]})
    assert listed(layout) == ["local/cam-0", "yard/attached"]
    prepare(layout.folder, {"site": "local", "cameras": [{"name": "cam-{index}", "count": 2}]})
    assert {each.name: each.state for each in camera_states(layout)} == {
        "local/cam-0": "offline", "local/cam-1": "silent", "yard/attached": "offline",
    }  # fmt: skip


def test_other_programs_use_the_console_s_database_that_a_setting_of_up_names(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.folder.mkdir()
    own = f"sqlite:///{tmp_path}/own.sqlite"
    prepare(layout.folder, {"site": "local", "cameras": [{"name": "cam-{index}", "count": 2}]}, console={"store": own})
    assert console_store("", layout.folder) == own  # of the recorder, the monitor and the announcer
    earlier_ms = time.time_ns() // 10**6 - 60_000
    write_cameras(layout, "local/cam-0", "local/cam-1", "yard/attached", seen_ms=earlier_ms)
    prepare(layout.folder, {"site": "local", "cameras": [{"name": "cam-0"}]}, console={"store": own})
    forget("yard/attached", layout)
    assert listed(layout) == ["local/cam-0"]
    assert read_forgotten(own).keys() == {"local/cam-1", "yard/attached"}


def test_a_relative_place_of_the_console_is_that_of_up_from_every_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "state")
    layout.folder.mkdir()
    monkeypatch.chdir(tmp_path)
    own = {"store": "sqlite:///own%3F.sqlite?timeout=3", "kept_files": "kept"}
    prepare(layout.folder, {"site": "local", "cameras": [{"name": "cam-0"}]}, console=own)
    assert layout.console_store == f"sqlite:///{tmp_path}/own%3F.sqlite?timeout=3"
    assert layout.kept_files == f"{tmp_path}/kept"
    elsewhere = {"store": "postgresql+psycopg://me@db/own", "kept_files": "s3://bucket/kept"}
    prepare(layout.folder, {"site": "local", "cameras": [{"name": "cam-0"}]}, console=elsewhere)
    assert {"store": layout.console_store, "kept_files": layout.kept_files} == elsewhere


@pytest.mark.parametrize(
    "store", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:own.sqlite?uri=true", "env:POINTILLIST_OWN", ""]
)
def test_a_console_s_database_that_is_no_file_of_the_working_folder_keeps_its_name(store: str) -> None:
    settings = UpSettings.model_validate({"console": {"store": store}})
    assert console_places(settings)["store"] == store


def test_a_file_behind_the_name_of_a_driver_is_that_of_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = UpSettings.model_validate({"console": {"store": "sqlite+pysqlite:///own.sqlite"}})
    assert console_places(settings)["store"] == f"sqlite+pysqlite:///{tmp_path}/own.sqlite"


def test_a_console_s_database_in_a_variable_is_used_by_other_programs_and_written_to_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, own = Layout(tmp_path / "state"), f"sqlite:///{tmp_path}/own.sqlite"
    layout.folder.mkdir()
    setting = {"store": "env:POINTILLIST_OWN"}
    monkeypatch.setenv("POINTILLIST_OWN", own)
    prepare(layout.folder, {"site": "local", "cameras": [{"name": "cam-{index}", "count": 2}]}, console=setting)
    assert "own.sqlite" not in layout.run.read_text()
    assert console_store("", layout.folder) == own
    write_cameras(layout, "local/cam-0", "local/cam-1", "yard/a", "yard/b", seen_ms=time.time_ns() // 10**6 - 60_000)
    prepare(layout.folder, {"site": "local", "cameras": [{"name": "cam-0"}]}, console=setting)
    forget("yard/a", layout)
    assert listed(layout) == ["local/cam-0", "yard/b"]
    assert read_forgotten(own).keys() == {"local/cam-1", "yard/a"}
    monkeypatch.delenv("POINTILLIST_OWN")
    assert listed(layout) == ["local/cam-0", "local/cam-1", "yard/a", "yard/b"]  # as while no database answers
    with pytest.raises(ConfigError, match=r"expected its URL in the variable POINTILLIST_OWN, got no such variable\."):
        forget("yard/b", layout)


def test_a_console_s_database_that_does_not_answer_is_one_line_without_its_password(tmp_path: Path) -> None:
    layout, setting = Layout(tmp_path / "state"), {"store": "postgresql://me:hidden@127.0.0.1:9/own"}
    layout.folder.mkdir()
    prepare(layout.folder, {"site": "local", "cameras": [{"name": "cam-{index}", "count": 2}]}, console=setting)
    write_cameras(layout, "yard/a", seen_ms=time.time_ns() // 10**6 - 60_000)
    (line,) = prepare(layout.folder, {"site": "local", "cameras": [{"name": "cam-0"}]}, console=setting)
    with pytest.raises(StateError) as caught:
        forget("yard/a", layout)
    for text in (line.removeprefix("cameras of the earlier scenario stay listed: "), str(caught.value)):
        assert text.startswith("the console's database 127.0.0.1:9/own: expected a response, got connection failed: ")
        assert text.endswith("Connection refused. Start the database, or correct its URL.")
        assert "hidden" not in text
        assert len(text.splitlines()) == 1


def test_a_camera_removed_from_the_file_of_a_run_can_be_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, file = tmp_path / "state", tmp_path / "cameras.yaml"
    state.mkdir()

    def write_list(*names: str) -> None:
        each = [{"name": name, "source": {"address": "rtsp://127.0.0.1:9/x"}} for name in names]
        file.write_text(yaml.safe_dump({"site": "yard", "cameras": each}))

    write_list("hall", "gate")
    monkeypatch.chdir(tmp_path)
    prepare(state, {"site": "yard", "cameras": [{"name": "hall"}, {"name": "gate"}]}, cameras_file="cameras.yaml")
    monkeypatch.chdir(state)
    layout = Layout(state)
    write_cameras(layout, "yard/hall", "yard/gate", seen_ms=time.time_ns() // 10**6 - 60_000)
    with pytest.raises(ConfigError, match=rf"^yard/gate: .*, got one of {file}\. Remove it there\.$"):
        forget("yard/gate", layout)
    write_list("hall", "new")
    forget("yard/gate", layout)
    assert listed(layout) == ["yard/hall", "yard/new"]
    file.write_text("cameras: 7")  # the cameras of the earlier file continue
    assert listed(layout) == ["yard/hall", "yard/gate"]


def test_up_opens_its_sources_before_anything_starts_and_continues_if_one_of_them_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "MADE", tmp_path / "made")
    state = tmp_path / "state"
    state.mkdir()
    off = {"name": "off", "source": {"kind": "url", "address": "rtsp://u:hidden@127.0.0.1:9/x"}}
    begun = time.monotonic()
    with pytest.raises(
        SourceError, match=r"^local/off: rtsp://127\.0\.0\.1:9/…: Connection refused\. Start the camera"
    ):
        prepare(state, {"site": "local", "cameras": [off]})
    assert time.monotonic() - begun < 20
    assert not list((state).rglob("*.key"))
    degraded, missing = prepare(state, {"site": "local", "cameras": [off, {"name": "scene"}]})
    assert missing.startswith("the bundle imagenet is missing: expected it for real cameras, got scene, ")
    assert degraded == "local/off: rtsp://127.0.0.1:9/…: Connection refused; the camera is degraded and retries"


def test_status_after_the_end_of_up_reports_that_roles_are_not_restarted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with RoleTable(state):
        (state / "roles.json").write_text('{"bridge": {"pid": 1, "listen": null, "metrics": null}}')
        assert role_states(Layout(state))[0].detail == "it has ended; `up` starts it again"
    (state / "roles.json").write_text('{"bridge": {"pid": 1, "listen": null, "metrics": null}}')
    assert role_states(Layout(state))[0].detail == "it has ended with `up`"
    assert call("status", "--state", state) == 1
    printed = capsys.readouterr().out
    assert f"nothing restarts them. Start it again with the same options: pointillist up --state {state} …" in printed
    assert "starts it again" not in printed


def test_a_camera_that_still_sends_is_not_forgotten(tmp_path: Path) -> None:
    layout, now_ms = Layout(tmp_path / "state"), time.time_ns() // 10**6
    row = {"camera": "local/here", "boot": 7, "frames": 5, "duplicates": 0, "last_ms": now_ms}
    write_database(layout, [report("local/here")._replace(state_ms=now_ms, seen_ms=now_ms)], {})
    engine = open_engine(layout.database_url, writes=True)
    with engine.begin() as connection:
        connection.execute(boots.insert(), row)
    engine.dispose()
    with pytest.raises(ConfigError, match=r"^local/here: expected a camera that is gone, got one that is online\."):
        forget("local/here", layout)
    assert listed(layout) == ["local/here"]
