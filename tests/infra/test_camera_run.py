"""The command `pointillist camera run`: cameras listed in a file, in one process or several."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import typer
import yaml

from benchmarks.harness.videos import shades, write_video
from infra.cameras.rates import USUAL_MIB
from infra.cameras.roster import Broker, FileOfCameras, Share, empty_shares
from infra.cli import camera_run as module
from infra.cli.camera_run import run
from infra.local.mosquitto import Mosquitto
from infra.local.process import COMMAND
from infra.pki.authority import Authority
from infra.pki.enrolment import enroll
from infra.preflight.brokers import RejectionError
from infra.process.exit_status import FLEET_PENDING
from infra.settings.load import SettingsSources, load
from infra.state_folder import Layout
from producers.camera.role_settings import CameraRunSettings
from producers.fleet.camera_spec import CameraSpecs
from schemas.errors import BrokerError, ConfigError, StateError, UserError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.runtime.json_files import read_json, write_json
from tests.commands import run_command
from tests.infra.secure import SECRET, make_fleet
from tests.producers.fake_bridge import SECRET as BRIDGE_SECRET
from tests.producers.fake_bridge import FakeBridge
from tests.waiting import PATIENCE_S, wait_until

_sites = (f"cli-{number}" for number in range(100))


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_video(tmp_path / "film.mp4", shades(20, 48, 32))


@pytest.fixture
def site() -> str:
    return next(_sites)


@pytest.fixture
def system(tmp_path: Path) -> Layout:
    """Create a state folder without TLS, with the fleet secret of the fake bridge."""
    layout = Layout(tmp_path / "system")
    layout.folder.mkdir()
    layout.secret_file.write_text(BRIDGE_SECRET.hex())
    return layout


@pytest.fixture
def bridge(mosquitto: Mosquitto) -> Iterator[FakeBridge]:
    with FakeBridge((mosquitto.host, mosquitto.port)) as fake:
        yield fake


def write(file: Path, site: str, cameras: list[dict[str, object]], **top: object) -> Path:
    fresh = file.with_suffix(".fresh")
    fresh.write_text(yaml.safe_dump({"site": site, "cameras": cameras, **top}))
    fresh.replace(file)
    return file


def run_cameras(file: Path, *, check: bool = False, **options: object) -> None:
    """Run the command in this process, with `options` as settings."""
    run(load(CameraRunSettings, SettingsSources("camera-run", options={"cameras": file, **options})), check=check)


def command(*arguments: object) -> list[str]:
    return [*COMMAND, "camera", "run", *map(str, arguments)]


def run_to_end(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_command("camera", "run", *arguments)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the error line of a process that exited with status 2."""
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return line


def test_an_invalid_file_or_option_is_one_error_line_and_status_2(tmp_path: Path, film: Path) -> None:
    cameras: list[dict[str, object]] = [{"name": "one", "source": {"file": str(film)}}]
    good = write(tmp_path / "cameras.yaml", "yard", cameras)
    with pytest.raises(ConfigError, match="expected a readable file, got No such file"):
        run_cameras(tmp_path / "none.yaml")
    wrong = write(tmp_path / "wrong.yaml", "yard", [{"name": "one", "source": {"file": str(film)}, "fsp": 1}])
    assert "cameras.0.fsp: unknown key; expected one of" in error_of(run_to_end(wrong))
    for options, message in (
        ({}, "got none of 1. yard/one: enrolment is missing"),
        ({"share": "4/3"}, "share: expected a share such as 1/3"),
        ({"share": "1/3", "processes": 2}, "share: expected no processes next to it"),
        ({"mqtt": "nowhere"}, "address: expected host:port"),
        ({"mqtt": "http://broker:1883"}, "--mqtt: expected host:port or mqtts"),
        ({"state": tmp_path}, "--state: expected a state folder"),
        ({"metrics": "nowhere"}, "got none of 1"),
    ):
        with pytest.raises(UserError, match=message):
            run_cameras(good, **options)


def test_check_opens_every_source_within_a_deadline_and_prints_a_line_for_each(
    tmp_path: Path, film: Path, system: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    deaf = socket.create_server(("127.0.0.1", 0))  # accepts connections, and never answers
    address = f"rtsp://127.0.0.1:{deaf.getsockname()[1]}"
    cameras: list[dict[str, object]] = [
        {"name": "film", "source": {"address": film.name}},
        {"name": "gone", "source": {"file": "gone.mp4"}},
        {"name": "deaf", "source": {"address": f"{address}/x", "open_s": 1}},
    ]
    file = write(tmp_path / "cameras.yaml", "yard", cameras)
    begun = time.monotonic()
    with deaf, pytest.raises(typer.Exit) as ended:
        run_cameras(file, state=system.folder, mqtt="127.0.0.1:1", check=True)
    assert time.monotonic() - begun < PATIENCE_S
    assert ended.value.exit_code == 2
    assert capsys.readouterr().out.splitlines() == [
        "yard/film: 2 frames/s, raw, 48x32",
        f"yard/gone: 2 frames/s, video, no picture: video {tmp_path / 'gone.mp4'}: No such file or directory",
        f"yard/deaf: 2 frames/s, video, no picture: {address}/…: did not answer for 1 s",
        f"{file}: 3 cameras, 2 without a picture, 0 that cannot run",
    ]
    del cameras[1:]
    with pytest.raises(typer.Exit) as ended:
        run_cameras(write(file, "yard", cameras), state=system.folder, mqtt="127.0.0.1:1", check=True)
    assert ended.value.exit_code == 0


@pytest.mark.parametrize("place", ["", "yard"])
def test_enrolments_give_identity_and_broker_and_a_renewed_one_changes_only_its_camera(
    tmp_path: Path, place: str
) -> None:
    authority = Authority(make_fleet(tmp_path / "fleet").pki)
    folder = tmp_path / "enrolments"

    def enrol(name: str) -> None:
        key = derive_camera_key(SECRET, CameraId(f"yard/{name}"))
        enroll(authority, key, folder / place / f"{name}.enrolment", "broker.example:8883")

    enrol("gate")
    cameras: list[dict[str, object]] = [
        {"name": name, "source": {"address": "rtsp://h/x"}} for name in ("gate", "door")
    ]
    listed = FileOfCameras(write(tmp_path / "cameras.yaml", "yard", cameras, enrolments="enrolments"))
    first, stamp = listed.read(), listed.stamp()
    gate = first.runnable[CameraId("yard/gate")]
    assert gate.mqtt == ("broker.example", 8883)
    assert gate.tls is not None
    assert "expected a readable enrolment" in first.rejected[CameraId("yard/door")]
    assert listed.certificates == [folder / place / "gate.enrolment"]
    assert listed.stamp() == stamp == (listed.read(), listed.stamp())[1]
    enrol("door")
    assert listed.stamp() != stamp
    second = listed.read()
    assert not second.rejected
    assert listed.certificates == [folder / place / f"{name}.enrolment" for name in ("gate", "door")]
    assert second.runnable[CameraId("yard/gate")] == gate
    enrol("gate")
    assert listed.read().runnable[CameraId("yard/gate")] != gate
    assert listed.read().runnable[CameraId("yard/door")] == second.runnable[CameraId("yard/door")]


def test_a_camera_is_in_exactly_one_share() -> None:
    names = [CameraId(f"yard/cam-{number}") for number in range(300)]
    shares = [Share.parse(f"{number}/4") for number in (1, 2, 3, 4)]
    counts = [sum(share.has(name) for name in names) for share in shares]
    assert sum(counts) == 300
    assert min(counts) > 40
    assert all(sum(share.has(name) for share in shares) == 1 for name in names)
    for wrong in ("0/3", "a/b", "3", "1/0"):
        with pytest.raises(ConfigError, match="1/3"):
            Share.parse(wrong)


def test_a_camera_without_a_broker_address_is_rejected(tmp_path: Path, system: Layout) -> None:
    cameras: list[dict[str, object]] = [{"name": "gate", "source": {"address": "rtsp://h/x"}}]
    file = write(tmp_path / "cameras.yaml", "yard", cameras)
    rejected = FileOfCameras(file, state=system.folder).read().rejected
    assert "broker is missing: expected its address" in rejected[CameraId("yard/gate")]
    with_broker = FileOfCameras(file, state=system.folder, broker=Broker(("127.0.0.1", 1883)))
    assert with_broker.read().runnable[CameraId("yard/gate")].mqtt == ("127.0.0.1", 1883)


def test_cameras_with_keys_of_the_state_folder_get_the_quota_of_attached_cameras(
    tmp_path: Path, film: Path, system: Layout
) -> None:
    def camera(name: str, **options: object) -> dict[str, object]:
        return {"name": name, "source": {"file": str(film)}, **options}

    door = derive_camera_key(SECRET, CameraId("yard/door"))
    enroll(Authority(make_fleet(tmp_path / "fleet").pki), door, tmp_path / "door.enrolment")
    file = write(tmp_path / "cameras.yaml", "yard", [camera("gate"), camera("door", enrolment="door.enrolment")])
    address = "127.0.0.1:1"
    with pytest.raises(typer.Exit):
        run_cameras(file, check=True, state=system.folder, mqtt=address)
    write_json(system.run, {"options": {"cameras_file": str(file)}})  # the list of `up --cameras-file`
    with pytest.raises(BrokerError):
        run_cameras(file, state=system.folder, mqtt=address, connect_timeout_s=0.1)
    assert not system.camera_rates.exists()
    system.run.unlink()
    with pytest.raises(BrokerError):
        run_cameras(file, state=system.folder, mqtt=address, connect_timeout_s=0.1)
    assert read_json(system.camera_rates) == {"yard/gate": USUAL_MIB}
    running = FileOfCameras(file, state=system.folder, broker=Broker(("127.0.0.1", 1)), allows_rates=True)
    write(file, "yard", [camera("gate"), camera("hall")])
    system.camera_rates.write_text("{")
    with pytest.raises(StateError, match="expected a JSON object with a rate for each camera"):
        running.read()
    write_json(system.camera_rates, {"yard/gate": 300})
    running.read()
    assert read_json(system.camera_rates) == {"yard/gate": 300, "yard/hall": USUAL_MIB}


@pytest.mark.brokers
def test_the_command_follows_its_file_and_drains_when_it_is_stopped(
    mosquitto: Mosquitto, bridge: FakeBridge, system: Layout, film: Path, site: str, tmp_path: Path
) -> None:
    def camera(name: str) -> dict[str, object]:
        return {"name": name, "fps": 20, "source": {"file": str(film), "loop": True}}

    def frames(name: str) -> int:
        return sum(identity.camera_id == f"{site}/{name}" for identity in list(bridge.frames))

    def phase(name: str) -> str:
        phases = json.loads(report.read_text()) if report.exists() else {}
        return str(phases.get(f"{site}/{name}", {}).get("phase"))

    report = tmp_path / "spools" / "cameras.json"
    file = write(tmp_path / "cameras.yaml", site, [camera("one")])
    address = f"{mosquitto.host}:{mosquitto.port}"
    options = ("--state", system.folder, "--mqtt", address, "--spool", tmp_path / "spools")
    with subprocess.Popen(command(file, *options), stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: frames("one") > 3)
            file.write_text("site: [")
            write(file, site, [camera("one"), camera("two")])
            wait_until(lambda: frames("two") > 3)
            write(file, site, [camera("two")])
            wait_until(lambda: (phase("one"), phase("two")) == ("None", "capturing"))
        finally:
            os.kill(process.pid, signal.SIGTERM)
        assert process.stderr is not None
        log = process.stderr.read()
        assert process.wait(30) == 0
    events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    changes = [
        (event["event"], event["camera"]) for event in events if event["event"] in ("camera_added", "camera_removed")
    ]
    assert changes == [
        ("camera_added", f"{site}/one"),
        ("camera_added", f"{site}/two"),
        ("camera_removed", f"{site}/one"),
    ]


@pytest.mark.brokers
def test_two_processes_share_the_cameras_and_end_with_their_sources(
    mosquitto: Mosquitto, bridge: FakeBridge, system: Layout, film: Path, site: str, tmp_path: Path
) -> None:
    group: dict[str, object] = {"name": "cam-{index}", "count": 4, "fps": 0, "source": {"file": str(film)}}
    file = write(tmp_path / "cameras.yaml", site, [group])
    address = f"{mosquitto.host}:{mosquitto.port}"
    done = run_to_end(
        file, "--state", system.folder, "--mqtt", address, "--spool", tmp_path / "spools", "--processes", 2
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    mine = [identity for identity in bridge.frames if identity.camera_id.startswith(f"{site}/")]
    assert len(mine) == 4 * 20
    shares = [json.loads((tmp_path / "spools" / f"cameras-{number}.json").read_text()) for number in (1, 2)]
    assert sorted(name for share in shares for name in share) == [f"{site}/cam-{number}" for number in range(4)]


@pytest.mark.brokers
def test_a_process_without_cameras_exits_when_the_others_do(
    mosquitto: Mosquitto, bridge: FakeBridge, system: Layout, film: Path, site: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "cameras.yaml", site, [{"name": "cam", "fps": 0, "source": {"file": str(film)}}])
    address = f"{mosquitto.host}:{mosquitto.port}"
    assert len(empty_shares(file, 2)) == 1
    done = run_to_end(
        file, "--state", system.folder, "--mqtt", address, "--spool", tmp_path / "spools", "--processes", 2
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sum(identity.camera_id == f"{site}/cam" for identity in bridge.frames) == 20
    file.write_text("cameras: [")
    assert empty_shares(file, 2) == set()


def test_a_process_killed_at_the_drain_deadline_counts_as_having_unsent_frames(
    tmp_path: Path, film: Path, system: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "cameras.yaml", "yard", [{"name": "one", "source": {"file": str(film)}}])
    [hanging] = empty_shares(file, 2)
    # When the process with the camera ends, the other one is stopped. It ignores SIGTERM.
    program = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"time.sleep(60 if 'share = \"{hanging}/2\"' in pathlib.Path(sys.argv[-1]).read_text() else 0)\n"
    )
    monkeypatch.setattr("infra.cameras.processes.COMMAND", (sys.executable, "-c", program))
    monkeypatch.setattr("infra.cli.camera_run._END_S", 0.5)
    monkeypatch.setattr(
        "infra.process.role.run_role", lambda _name, _metrics, entry: asyncio.run(entry(None, None, asyncio.Event()))
    )
    spools = tmp_path / "spools"
    with pytest.raises(typer.Exit) as ended:
        run_cameras(file, state=system.folder, mqtt="127.0.0.1:1", spool=spools, processes=2, drain_s=0)
    assert ended.value.exit_code == FLEET_PENDING


def test_each_of_several_processes_serves_its_metrics_on_the_next_port(
    tmp_path: Path, film: Path, system: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "cameras.yaml", "yard", [{"name": "one", "source": {"file": str(film)}}])
    ports: list[str] = []

    async def read_settings(count: int, arguments: Callable[[int], list[str]], *_: object) -> list[int]:
        files = (Path(arguments(number)[-1]) for number in range(1, count + 1))
        ports.extend(tomllib.loads(each.read_text())["metrics"] for each in files)
        return [0] * count

    monkeypatch.setattr("infra.cameras.processes.run_processes", read_settings)
    monkeypatch.setattr(
        "infra.process.role.run_role", lambda _name, _metrics, entry: asyncio.run(entry(None, None, asyncio.Event()))
    )
    options: dict[str, Any] = {
        "state": system.folder,
        "mqtt": "127.0.0.1:1",
        "spool": tmp_path / "spools",
        "processes": 2,
    }
    with pytest.raises(typer.Exit):
        run_cameras(file, metrics="[::1]:9000", **options)
    assert ports == ["[::1]:9000", "[::1]:9001"]
    with pytest.raises(ConfigError, match="--metrics: expected a port of at most 65534 for 2 processes"):
        run_cameras(file, metrics="127.0.0.1:65535", **options)


@pytest.mark.brokers
def test_a_second_run_on_a_folder_writes_no_report_and_fails_for_cameras_in_use(
    mosquitto: Mosquitto, bridge: FakeBridge, system: Layout, film: Path, site: str, tmp_path: Path
) -> None:
    def listed(name: str) -> Path:
        camera: dict[str, object] = {"name": name, "fps": 20, "source": {"file": str(film), "loop": True}}
        return write(tmp_path / f"{name}.yaml", site, [camera])

    def sends(name: str) -> bool:
        return sum(identity.camera_id == f"{site}/{name}" for identity in list(bridge.frames)) > 3

    spools = tmp_path / "spools"
    options = ("--state", system.folder, "--mqtt", f"{mosquitto.host}:{mosquitto.port}", "--spool", spools)
    one, two = listed("one"), listed("two")
    with (
        subprocess.Popen(command(one, *options), stderr=subprocess.DEVNULL) as first,
        (tmp_path / "log").open("w") as log,
    ):
        try:
            wait_until(lambda: sends("one"))
            assert f"{site}/one: expected one that is not in use" in error_of(run_to_end(one, *options))
            with subprocess.Popen(command(two, *options), stderr=log) as second:
                try:
                    wait_until(lambda: sends("two"))
                finally:
                    second.terminate()
            assert second.returncode == 0
            assert list(json.loads((spools / "cameras.json").read_text())) == [f"{site}/one"]
            assert "camera_report_in_use" in (tmp_path / "log").read_text()
        finally:
            first.terminate()
    assert first.returncode == 0


@pytest.mark.brokers
def test_a_second_run_in_several_processes_keeps_the_settings_of_the_first(
    mosquitto: Mosquitto, bridge: FakeBridge, system: Layout, film: Path, site: str, tmp_path: Path
) -> None:
    cameras: list[dict[str, object]] = [{"name": "one", "fps": 20, "source": {"file": str(film), "loop": True}}]
    one, two = write(tmp_path / "one.yaml", site, cameras), write(tmp_path / "two.yaml", site, cameras)
    settings = tmp_path / "spools" / "settings" / "cameras-2.toml"
    address = f"{mosquitto.host}:{mosquitto.port}"
    options = ("--state", system.folder, "--mqtt", address, "--spool", tmp_path / "spools", "--processes", 2)
    with subprocess.Popen(command(one, *options), stderr=subprocess.DEVNULL) as first:
        try:
            wait_until(lambda: settings.exists() and bridge.frames)
            assert str(tmp_path / "spools") in error_of(run_to_end(two, *options, "--seconds", 5))
            assert str(one) in settings.read_text()
        finally:
            first.terminate()
    assert first.returncode == 0


def test_a_camera_that_the_broker_rejects_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = SimpleNamespace(mqtt=("broker.example", 8883), tls=None, login=None)
    specs = cast(CameraSpecs, SimpleNamespace(runnable={"lab/revoked": place, "lab/door": place, "lab/gate": place}))
    answers = ["expected an accepted connection, got a revoked certificate", "", ""]

    def answer(*_: object, **__: object) -> None:
        if words := answers.pop(0):
            raise RejectionError(words)

    monkeypatch.setattr(module, "require_brokers", answer)
    module._require_broker(5.0, specs)
    assert capsys.readouterr().err == "lab/revoked: expected an accepted connection, got a revoked certificate\n"
    assert answers == [""]
    answers[:] = ["rejected"] * 3
    with pytest.raises(RejectionError, match="rejected"):
        module._require_broker(5.0, specs)
