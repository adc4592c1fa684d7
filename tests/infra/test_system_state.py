"""The state of a running system for the terminal: its roles, its cameras and the reasons for broken ones."""

from __future__ import annotations

import json
import shlex
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from consumers.cameras.order import natural
from consumers.cameras.state import State
from consumers.console.access.owner import OwnerToken
from consumers.console.data.roles import RoleState
from consumers.database.engine import open_engine
from consumers.database.tables import boots, cameras, metadata
from consumers.records.batch import clean
from consumers.records.rows import CameraRow
from infra.cli import EPILOG, status
from infra.cli.rows import print_rows
from infra.state_folder import Layout
from infra.state_folder.environment import Environment
from infra.up import system_state
from infra.up.processes import Role
from infra.up.scrape import Samples
from infra.up.settings import UpSettings, scenario_document, usual_cameras
from infra.up.system_state import CameraState, camera_states, page_addresses, role_states
from infra.up.table import MOST_NAMED, LiveTable, broken_rows, figures
from schemas.errors import ConfigError, StateError
from schemas.pointillist_pb2 import DEGRADED, OFFLINE, ONLINE, RAW, Meta
from tests.infra.command_line import call

NOW_MS = 1_700_000_000_000


def write_database(layout: Layout, reports: list[CameraRow], last_frames_s: dict[str, int]) -> None:
    """Write cameras with their reports, and with the age of their last frame in seconds."""
    layout.folder.mkdir(parents=True, exist_ok=True)
    engine = open_engine(layout.database_url, writes=True)
    metadata.create_all(engine)
    with engine.begin() as connection:
        if reports:
            connection.execute(cameras.insert(), [row._asdict() for row in reports])
        for name, ago_s in last_frames_s.items():
            row = {"camera": name, "boot": 7, "frames": 5, "duplicates": 0, "last_ms": NOW_MS - 1000 * ago_s}
            connection.execute(boots.insert(), row)
    engine.dispose()


def report(name: str, state: int = ONLINE, ago_s: int = 100, detail: str = "", rate: float = 2.0) -> CameraRow:
    meta = Meta(boot_id=7, width=64, height=48, channels=3, frames_per_second=rate, profile=RAW).SerializeToString()
    return CameraRow(name, state, NOW_MS - 1000 * ago_s, detail, b"", meta, NOW_MS)


def test_broken_cameras_come_first_with_their_reasons(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    reports = [
        report("a/cam-10"), report("a/cam-2"), report("a/seldom", rate=0.01), report("a/hung"),
        report("a/sick", DEGRADED, detail="the source gives no frames"), report("a/gone", OFFLINE, ago_s=300),
        report("a/back", OFFLINE, ago_s=60),
    ]  # fmt: skip
    write_database(
        layout, reports, {"a/cam-10": 1, "a/cam-2": 1, "a/seldom": 90, "a/hung": 45, "a/sick": 1, "a/back": 1}
    )
    layout.scenario.write_text(yaml.safe_dump({"site": "a", "cameras": [{"name": "cam-2"}, {"name": "new"}]}))
    found = camera_states(layout, NOW_MS)
    assert [(each.name, each.state) for each in found] == [
        ("a/gone", "offline"), ("a/hung", "silent"), ("a/new", "silent"), ("a/sick", "degraded"),
        ("a/back", "online"), ("a/cam-2", "online"), ("a/cam-10", "online"), ("a/seldom", "online"),
    ]  # fmt: skip
    assert {each.own_bytes for each in found} == {None}
    why = {each.name: each.detail for each in found}
    assert why["a/sick"] == "the source gives no frames"
    assert why["a/hung"] == "no frame for more than 10 s"
    assert why["a/new"] == "it has not connected yet"
    assert why["a/gone"].startswith("no connection to the MQTT broker")
    assert found[5] == CameraState("a/cam-2", State.ONLINE, "", 1.0, 5, (64, 48), 2.0)


def test_a_boot_recorded_by_a_clock_that_was_ahead_hides_no_silent_camera(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    write_database(layout, [report("porch/gate")], {"porch/gate": 300})
    engine = open_engine(layout.database_url, writes=True)
    with engine.begin() as connection:
        ahead = {"camera": "porch/gate", "boot": 6, "frames": 5, "duplicates": 0, "last_ms": NOW_MS + 3_600_000}
        connection.execute(boots.insert(), ahead)
    engine.dispose()
    [found] = camera_states(layout, NOW_MS)
    assert (found.state, found.age_s, found.frames) == (State.SILENT, 300.0, 10)


def test_cameras_of_the_scenario_are_listed_before_the_recorder_has_a_database(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert camera_states(layout) == []
    layout.scenario.write_text(yaml.safe_dump({"site": "a", "cameras": [{"name": "cam-{index}", "count": 2}]}))
    assert [each.name for each in camera_states(layout)] == ["a/cam-0", "a/cam-1"]


@given(st.lists(st.integers(0, 10**6), min_size=1), st.text(max_size=5), st.text(max_size=5))
def test_camera_names_are_sorted_by_their_numbers(numbers: list[int], before: str, after: str) -> None:
    names = [f"site/cam-{number}" for number in numbers]
    assert sorted(names, key=natural) == [f"site/cam-{number}" for number in sorted(numbers)]
    assert natural(before) != natural(after) or before == after or any(each.isdecimal() for each in before + after)


def test_a_role_without_a_process_is_listed_as_gone(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="--state: expected a state folder"):
        role_states(Layout(tmp_path))
    (tmp_path / "roles.json").write_text("{}")
    with pytest.raises(StateError, match="expected a running system"):
        role_states(Layout(tmp_path))
    (tmp_path / "roles.json").write_text('{"prometheus": {"pid": 1, "listen": "127.0.0.1:9", "metrics": null}}')
    (role,) = role_states(Layout(tmp_path))
    assert (role.name, role.state) == ("prometheus", "gone")
    grafana = RoleState("grafana", "up", "127.0.0.1:1", 1)
    console = RoleState("console", "up", "0.0.0.0:8443", 3, url="https://192.0.2.7:8443")
    assert page_addresses([role, grafana, console]) == {
        "console": "https://192.0.2.7:8443/",
        "Grafana": "http://127.0.0.1:1/",
    }


def rendered(*parts: object) -> list[str]:
    console = Console(width=80, file=StringIO(), force_terminal=True, color_system=None)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_text_of_a_camera_cannot_control_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]52;c;Y3VybA==\x07\x1b[2J\u202efine, 🚗 ü"
    write_database(Layout(tmp_path), [report("a/evil", DEGRADED, detail=evil)], {"a/evil": 1})
    (found,) = camera_states(Layout(tmp_path), NOW_MS)
    assert found.detail == "�]52;c;Y3VybA==��[2J�fine, 🚗 ü" == clean(evil)
    assert clean("CUDA error: assert\n\tsee the log") == "CUDA error: assert see the log"
    for width in (200, 20):
        output = StringIO()
        print_rows(Console(file=output, width=width), ("camera", "why"), [("a/evil", evil)])
        assert all(each.isprintable() for each in output.getvalue().replace("\n", ""))


def test_the_table_of_up_fits_80_columns_with_a_row_for_each_broken_camera() -> None:
    cells = {
        "published": "1234567", "recorded": "1234567", "frames/s": "20000.0", "in spool": "0", "bytes saved": "24.9%",
        "p99 latency": "≤ 0.05 s", "accuracy": "98.7%", "under attack": "75.0%", "STRIP checks": "61728",
        "alerts": "3", "dead letters": "12",
    }  # fmt: skip
    broken = [
        CameraState(f"site/cam-{n}", State.DEGRADED, "the source cannot be read", 3.0, 1, None, None) for n in range(3)
    ]
    lines = rendered(figures(cells), *broken_rows(broken, "--state here"))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "…" not in text
    for name, value in cells.items():
        assert name in text
        assert value in text
    assert all(any(each.name in line and each.detail in line for line in lines) for each in broken)
    assert "not well: 3" in text
    assert not any("pointillist" in line for line in lines)
    state = "/var/lib/my fleet[red]"
    many = rendered(*broken_rows(broken * 40, Layout(Path(state)).state_option))
    assert f"and {120 - MOST_NAMED} more:" in many[-2]
    assert shlex.split(many[-1]) == ["pointillist", "cameras", "--broken", "--state", state]
    assert broken_rows([], "") == []


def test_a_database_that_is_briefly_unreadable_leaves_the_table_unchanged() -> None:
    def unreadable() -> list[CameraState]:
        raise StateError("there is none")

    output = StringIO()
    table = LiveTable(Console(width=80, file=output, force_terminal=True, color_system=None))
    table.begin({"console": console_page()}, 1.0, unreadable)
    table.tick()
    table.end()
    assert "console: http://127.0.0.1:9090/" in output.getvalue()
    assert "published" in output.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_owner_s_link_is_printed_on_a_terminal_and_never_to_a_log(tmp_path: Path, terminal: bool) -> None:
    file = tmp_path / "owner.token"
    token = OwnerToken(file)
    token.write()
    token.close()
    output = StringIO()
    table = LiveTable(Console(width=200, file=output, force_terminal=terminal, color_system=None))
    table.begin({"console": console_page(file)}, 1.0)
    table.end()
    text = file.read_text().strip()
    assert (f"console: http://127.0.0.1:9090/login/link?token={text}" in output.getvalue()) == terminal
    assert (text in output.getvalue()) == terminal
    assert "console: http://127.0.0.1:9090/" in output.getvalue()


def console_page(owner_file: Path | None = None) -> Role:
    process = SimpleNamespace(poll=lambda: None)
    return Role("console", process, listen=lambda: "127.0.0.1:9090", owner_file=owner_file)


def test_a_url_or_a_device_is_one_camera() -> None:
    assert usual_cameras("scene") == 8
    for source in ("rtsp://10.0.0.7/live", "/dev/video0"):
        assert usual_cameras(source) == 1
        document = scenario_document(UpSettings(source=source, cameras=1), None)
        assert document["cameras"][0]["count"] == 1
        with pytest.raises(ConfigError, match="--cameras: expected 1 with a URL or device"):
            scenario_document(UpSettings(source=source, cameras=2), None)


def test_help_names_every_variable_of_the_environment() -> None:
    epilog = EPILOG.replace("(_FILE)", " _FILE")
    names = {f"POINTILLIST_{name.upper()}" for name in Environment.model_fields}
    plain = {name for name in names if not name.endswith("_FILE") or name.removesuffix("_FILE") not in names}
    assert [name for name in sorted(plain) if name not in epilog] == []
    assert {name for name in names - plain if f"{name.removesuffix('_FILE')}(_FILE)" not in EPILOG} == set()


def test_version_and_doctor_have_output_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out.startswith("pointillist ")
    assert call("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ready"] is True
    assert {"mosquitto", "Kafka", "disk"} <= {part["what"] for part in found["parts"]}


def test_the_cameras_command_lists_the_frame_sizes_of_a_compressed_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = Meta(boot_id=7, frames_per_second=2, profile=RAW, stream_frame_bytes=3_110, sent_frame_bytes=4_020)
    row = CameraRow("a/door", ONLINE, NOW_MS, "", b"", meta.SerializeToString(), NOW_MS)
    write_database(Layout(tmp_path), [row, report("a/drawn")], {})
    shown = {each.name: status.frame_sizes(each) for each in camera_states(Layout(tmp_path), NOW_MS)}
    assert shown == {"a/door": "own stream 3.1 kB, published 4.0 kB", "a/drawn": ""}
    call("cameras", "--state", tmp_path, "--json")
    sizes = {each["name"]: each["own_bytes"] for each in json.loads(capsys.readouterr().out)}
    assert sizes == {"a/door": 3_110, "a/drawn": None}


def test_logs_prints_the_end_of_a_role_s_log_and_names_the_roles_with_a_log(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for file in ("logs/recorder.log", "kafka/kafka.log"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("".join(f"line {number}\n" for number in range(9)))
    call("logs", "kafka", "-n", "2", "--state", tmp_path)
    assert capfdbinary.readouterr().out == b"line 7\nline 8\n"
    with pytest.raises(ConfigError, match="\\(kafka, recorder\\), got 'bridge'"):
        call("logs", "bridge", "--state", tmp_path)
    with pytest.raises(StateError, match="expected a state folder of"):
        call("down", "--state", tmp_path / "nowhere")
    with pytest.raises(StateError, match="expected a running system"):
        call("down", "--state", tmp_path)


def test_a_scenario_of_another_release_names_no_camera(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.scenario.write_text("site: a\ncameras: 7\n")
    assert camera_states(layout) == []


def test_a_database_without_its_tables_is_one_error_line(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    engine = open_engine(layout.database_url, writes=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("create table other (x)")
    engine.dispose()
    with pytest.raises(
        StateError, match=r"^the recorder's database: expected a response in .*, got OperationalError\."
    ):
        camera_states(layout)


@pytest.mark.parametrize(("group", "backlog"), [("processors", 5), ("strangers", None)])
def test_a_processor_that_does_not_answer_gets_the_rest_of_the_group_s_lag(
    monkeypatch: pytest.MonkeyPatch, group: str, backlog: int | None
) -> None:
    monkeypatch.setattr(system_state, "PROCESSORS_GROUP", "processors")
    lags = SimpleNamespace(by=lambda *_: {group: 12.0})
    monkeypatch.setattr(Samples, "scrape", lambda *_: lags)
    roles = [
        RoleState("processor-1", "up", None, 1, backlog=7), RoleState("processor-2", "not answering", None, 2),
        RoleState("bridge", "up", None, 3),
    ]  # fmt: skip
    found = {role.name: role.backlog for role in system_state._with_group_lag(roles, "127.0.0.1:9")}
    assert found == {"processor-1": 7, "processor-2": backlog, "bridge": None}
