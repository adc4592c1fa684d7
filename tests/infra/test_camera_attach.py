"""The command `pointillist camera attach`: its options, identities and errors."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import SecretStr

from benchmarks.harness.videos import shades, write_video
from bundles import named_bundles
from infra.cameras.identity import camera_identity, resembling, simulator_network_note
from infra.cli.camera import attach
from infra.local.mosquitto import Mosquitto
from infra.local.process import COMMAND
from infra.pki.authority import Authority
from infra.pki.enrolment import enroll
from infra.settings.load import SettingsSources, load
from infra.state_folder import Layout
from producers.camera.camera_settings import CameraSettings
from producers.camera.role_settings import CameraAttachSettings
from producers.fleet.camera_file import parse_camera_file
from producers.fleet.camera_spec import CameraSpec
from producers.gate.motion import MotionSettings
from producers.publisher.applied_commands import write_command_state
from producers.publisher.first_answer import FirstAnswer
from producers.sources.settings import SourceSettings
from producers.spool.folder import spool_root
from schemas.errors import ConfigError, SecretError, SourceError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.pointillist_pb2 import CommandState
from tests.infra.secure import SECRET, make_fleet


@pytest.mark.brokers
def test_a_region_outside_the_frame_is_one_error_line_and_a_missing_bridge_is_logged_once(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    film = write_video(tmp_path / "grey.mp4", shades(20, 48, 32))
    command = [*COMMAND, "camera", "attach", str(film), "--name", "lab/door", "--spool", str(tmp_path / "spools")]
    command += ["--mqtt", f"{mosquitto.host}:{mosquitto.port}", "--fps", "1", "--drain-s", "0"]
    environment = os.environ | {"POINTILLIST_CAMERA_KEY": f"0:{'00' * 64}"}

    refused = subprocess.run(
        [*command, "--region", "30,0,20,20"], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        f"error: video {film}: expected a region inside 48x32, got 20x20 at (30, 0)"
    )
    with subprocess.Popen([*command, "--loop"], stderr=subprocess.PIPE, text=True, env=environment) as unanswered:
        assert unanswered.stderr is not None
        try:
            line = next(json.loads(each) for each in unanswered.stderr if "nothing_confirmed" in each)
        finally:
            unanswered.terminate()
        assert "nothing_confirmed" not in unanswered.stderr.read()
        assert unanswered.wait(60) == 3
    assert line["camera"] == "lab/door"
    assert line["reason"] == "the broker has no subscriber for frames: no bridge is connected to it"


class StandInCamera:
    """A stand-in for a running camera. `plans` are the settings of the cameras, and `tried` the opened sources."""

    drained = True
    refused = ""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plans: list[CameraSettings] = []
        self.tried: list[SourceSettings] = []
        monkeypatch.setattr("infra.cli.camera.require_brokers", lambda *_, **__: None)
        monkeypatch.setattr("producers.sources.trial.try_source", self.tried.append)
        monkeypatch.setattr("infra.process.role.run_role", lambda _name, _metrics, run, **_: run(None, None, None))
        monkeypatch.setattr("producers.fleet.real.run_camera", self.run)
        monkeypatch.setenv("POINTILLIST_CAMERA_KEY", f"0:{'00' * 64}")

    def run(self, spec: CameraSpec, **_: object) -> StandInCamera:
        self.plans.append(spec.settings)
        return self


def settings_of(**options: Any) -> CameraAttachSettings:
    """Return the settings from options of the command line, with `__` in place of a dot."""
    paths = {name.replace("__", "."): value for name, value in options.items()}
    return load(CameraAttachSettings, SettingsSources("camera-attach", options={"mqtt": "127.0.0.1:1"} | paths))


def attach_camera(url: str, folder: Path, **options: Any) -> None:
    with pytest.raises(typer.Exit):
        attach(settings_of(name="lab/door", spool=folder, **options), url)


def test_options_have_the_same_meaning_as_the_keys_in_cameras_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = tmp_path / "login"
    source = {
        "address": "rtsp://127.0.0.1/door", "login": {"file": str(login)}, "rotate": 90, "hang_s": 4.0, "open_s": 3.0,
        "privacy": [[0, 0, 0.3, 1], [0.5, 0.5, 0.25, 0.25]], "region": [8, 0, 640, 480], "size": [320, 240],
        "channels": 1, "hardware": "auto", "clock": "arrival",
    }  # fmt: skip
    camera = {"name": "door", "fps": 5, "schedule": {"hours": ["mon-fri 07:00-19:00", "22:00-23:00"], "zone": "UTC"}}
    document = {"site": "lab", "cameras": [camera | {"source": source, "motion": {"heartbeat_s": 30}}]}
    [listed] = parse_camera_file(document, tmp_path, "cameras.yaml").values()
    camera_runs = StandInCamera(monkeypatch)
    attach_camera(
        "rtsp://127.0.0.1/door", tmp_path, camera__fps="5", camera__source__login__file=str(login),
        camera__source__rotate="90", camera__source__hang_s="4", camera__source__open_s="3",
        camera__source__privacy=["0,0,.3,1", "0.5,0.5,0.25,0.25"], camera__source__region="8,0,640,480",
        camera__source__size="320x240", camera__source__channels="1", camera__source__hardware="auto",
        camera__source__clock="arrival", camera__schedule__hours=["mon-fri 07:00-19:00", "22:00-23:00"],
        camera__schedule__zone="UTC", camera__motion__heartbeat_s="30",
    )  # fmt: skip
    assert camera_runs.plans == [listed.settings]


def test_a_camera_without_options_has_no_schedule_and_no_motion_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera_runs = StandInCamera(monkeypatch)
    attach_camera("rtsp://127.0.0.1/door", tmp_path)
    attach_camera(str(tmp_path / "door.mp4"), tmp_path, camera__source__loop="true")
    live, file = camera_runs.plans
    assert (live.schedule, live.motion) == (None, None)
    assert live.source == SourceSettings(kind="url", address=SecretStr("rtsp://127.0.0.1/door"))
    assert file.source == SourceSettings(kind="video", file=tmp_path / "door.mp4", loop=True)


def test_outside_its_schedule_a_camera_starts_without_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    camera_runs = StandInCamera(monkeypatch)
    hour = datetime.now(UTC).hour
    hours = {
        "camera__schedule__zone": "UTC",
        "camera__schedule__hours": [f"{(hour + 12) % 24:02}:00-{(hour + 13) % 24:02}:00"],
    }
    attach_camera("rtsp://127.0.0.1/door", tmp_path, **hours)
    assert [plan.camera_id for plan in camera_runs.plans] == ["lab/door"]
    assert camera_runs.tried == []
    assert capsys.readouterr().err == "lab/door is outside its schedule: its source is not tried\n"
    hours["camera__schedule__hours"] = ["00:00-24:00"]
    attach_camera("rtsp://127.0.0.1/door", tmp_path, **hours)
    assert camera_runs.tried == [camera_runs.plans[1].source]


def test_a_camera_that_a_command_pauses_starts_without_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    camera_runs = StandInCamera(monkeypatch)
    attach_camera("rtsp://127.0.0.1/door", tmp_path)
    [plan] = camera_runs.plans
    folder = spool_root(tmp_path) / "lab/door"
    folder.mkdir(parents=True)
    write_command_state(folder, CommandState(issued_ms=1, enabled=False), plan.encoding, plan.fps)
    attach_camera("rtsp://127.0.0.1/door", tmp_path)
    assert camera_runs.plans == [plan, plan]
    assert camera_runs.tried == [plan.source]
    assert capsys.readouterr().err == "lab/door is paused by a command: its source is not tried\n"


def test_a_file_sets_all_options_of_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera_runs = StandInCamera(monkeypatch)
    file = tmp_path / "door.toml"
    file.write_text(
        f'address = "rtsp://127.0.0.1/door"\nname = "lab/door"\nmqtt = "127.0.0.1:1"\nspool = "{tmp_path}"\n'
        "[camera]\nfps = 3\n[camera.motion]\n[camera.source]\nsize = [64, 48]\n"
    )
    with pytest.raises(typer.Exit):
        attach(load(CameraAttachSettings, SettingsSources("camera-attach", file)))
    (plan,) = camera_runs.plans
    assert (plan.camera_id, plan.fps, plan.source.size, plan.motion) == ("lab/door", 3, (64, 48), MotionSettings())
    assert plan.source.address == SecretStr("rtsp://127.0.0.1/door")


def test_a_camera_without_an_address_is_rejected() -> None:
    with pytest.raises(ConfigError, match="URL is missing: expected an address"):
        attach(settings_of(name="lab/door"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotate": "45"}, r"camera.source.rotate: expected 0 or 90 or 180 or 270, got 45"),
        ({"hardware": "no such thing"}, r"camera.source.hardware: expected text that matches"),
        ({"clock": "mine"}, r'camera.source.clock: expected "auto" or "arrival", got .mine.'),
        ({"privacy": ["0,0,.3"]}, r"camera.source.privacy: expected X,Y,WIDTH,HEIGHT as shares from 0 to 1, got '0,0"),
        ({"privacy": ["0,0,640,480"]}, r"camera.source.privacy: expected list of "),
        ({"privacy": [".9,0,.3,1"]}, r"privacy: expected x, y, width, height as shares inside the picture"),
        ({"region": "1,2,3"}, r"camera.source.region: expected X,Y,WIDTH,HEIGHT, got '1,2,3'"),
        ({"size": "640"}, r"camera.source.size: expected WIDTHxHEIGHT, got '640'"),
        ({"loop": "true"}, r"a source of kind url knows .*; got loop"),
    ],
)
def test_an_invalid_option_of_the_source_is_one_error_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    assert_rejected(
        {f"camera__source__{name}": value for name, value in options.items()}, message, tmp_path, monkeypatch
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule__hours": ["monday"]}, r"expected hours as 'mon-fri 07:00-19:00'"),
        ({"schedule__hours": ["07:00-19:00"], "schedule__zone": "Nowhere/Land"}, r"Nowhere/Land"),
        ({"schedule__zone": "UTC"}, r"camera.schedule.hours is missing"),
        ({"motion__heartbeat_s": "0"}, r"camera.motion.heartbeat_s: expected number > 0"),
    ],
)
def test_an_invalid_schedule_or_motion_gate_is_one_error_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    assert_rejected({f"camera__{name}": value for name, value in options.items()}, message, tmp_path, monkeypatch)


def assert_rejected(options: dict[str, Any], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera_runs = StandInCamera(monkeypatch)
    with pytest.raises(ConfigError, match=message) as caught:
        attach(settings_of(name="lab/door", spool=folder, **options), "rtsp://127.0.0.1/door")
    assert "\n" not in str(caught.value)
    assert camera_runs.plans == []


def test_another_camera_s_key_is_rejected_and_a_similar_name_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    layout.issue_key(CameraId("lab/door"))
    key = layout.camera_key(CameraId("lab/door")).export()
    monkeypatch.setenv("POINTILLIST_CAMERA_KEY", key)
    assert camera_identity("lab/door", None, tmp_path).key.export() == key
    with pytest.raises(SecretError, match=r"expected the key of lab/gate .* got one of another camera or fleet"):
        camera_identity("lab/gate", None, tmp_path)
    assert resembling("lab/dor", layout) == "lab/door"
    assert resembling("lab/door", layout) is None
    assert resembling("yard/north", layout) is None


@pytest.fixture
def system(state_dir: Path) -> Layout:
    """Create the state folder of a system, as `up` leaves it."""
    layout = Layout(state_dir)
    layout.fleet_secret()
    return layout


def test_a_name_without_a_site_gets_the_default_site_or_the_site_of_its_enrolment(
    system: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera_runs = StandInCamera(monkeypatch)
    monkeypatch.delenv("POINTILLIST_CAMERA_KEY")
    with pytest.raises(typer.Exit):
        attach(settings_of(name="door", state=system.folder), "rtsp://127.0.0.1/door")
    assert [plan.camera_id for plan in camera_runs.plans] == ["local/door"]
    assert system.key_file(CameraId("local/door")).is_file()
    file = tmp_path / "door.enrolment"
    enroll(Authority(make_fleet(tmp_path / "fleet").pki), derive_camera_key(SECRET, CameraId("yard/door")), file)
    assert camera_identity("door", file, None).key.camera_id == "yard/door"
    with pytest.raises(ConfigError, match=r"--name: expected yard/door, .* got gate"):
        camera_identity("gate", file, None)


def test_a_source_that_cannot_be_opened_registers_no_camera(system: Layout) -> None:
    with pytest.raises(SourceError, match=r"rtsp://127\.0\.0\.1:9/…: Connection refused"):
        attach(settings_of(name="door", state=system.folder), "rtsp://127.0.0.1:9/typo")
    assert not list(system.keys.rglob("*.key"))
    assert not system.spool.exists()


def test_unconfirmed_first_frames_are_reported_once() -> None:
    waiting = FirstAnswer(4.0)
    assert not waiting.overdue(100.0)  # nothing was sent
    waiting.start(100.0)
    waiting.start(103.0)
    assert [waiting.overdue(at) for at in (103.9, 104.0, 105.0)] == [False, True, False]
    answered = FirstAnswer(4.0)
    answered.start(0.0)
    answered.settle()
    assert not answered.overdue(9.0)
    never = FirstAnswer(None)
    never.start(0.0)
    assert not never.overdue(1e9)


def test_a_real_camera_with_the_simulator_s_network_gets_a_note_until_a_model_is_published(
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path)
    assert simulator_network_note(tmp_path) is None
    layout.run.write_text(json.dumps({"bundle": str(tmp_path / "street"), "options": {}}))
    assert simulator_network_note(tmp_path) is None
    layout.run.write_text(json.dumps({"bundle": str(named_bundles()["scene"]), "options": {}}))
    note = simulator_network_note(tmp_path)
    assert note is not None
    assert "start `up` with --bundle" in note
    (layout.models / "digest").mkdir(parents=True)
    assert simulator_network_note(tmp_path) is None
