"""`pointillist up` as a person runs it: a whole system on real brokers."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks.harness.system import RunningSystem, audit
from infra.audit.audit import audit as count_frames
from infra.pki.roles import SHARE_FILE, role_tls
from infra.state_folder import Layout
from infra.up.preparation import note_unchecked_probes
from infra.up.settings import UpSettings, scenario_document
from processors.bundle import shipped_bundle
from producers.simulation.scenario import parse_scenario
from schemas.identity import CameraId
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import LOSSLESS, Command
from schemas.runtime.trace import STAMPS
from schemas.topics import Channel, mqtt_topic
from tests.commands import run_command
from tests.waiting import wait_until

pytestmark = [pytest.mark.brokers, pytest.mark.slow]


def lost(state: Path) -> int:
    """What the audit counts as lost; its exit status must say the same."""
    status, found = audit(state)
    assert status == (1 if found["frames_lost"] else 0)
    return int(found["frames_lost"])


def await_more_recorded(system: RunningSystem, frames: int) -> None:
    """Wait until `frames` more than now are in the database: cameras, brokers and all roles are at work."""
    layout = Layout(system.state)
    wanted = count_frames(layout).counts().frames_recorded + frames

    def recorded() -> bool:
        assert system.process.poll() is None, system.output()
        return count_frames(layout).counts().frames_recorded >= wanted

    wait_until(recorded, f"{frames} frames more in the database", within_s=90, every_s=0.3)


def get(url: str) -> bytes:
    """What an address answers; empty as long as it refuses."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as refused:
        refused.close()
        return b""


def _cameras(console: str) -> set[str]:
    return {
        card["name"] for card in json.loads(get(f"http://{console}/api/v1/cameras") or b'{"cameras": []}')["cameras"]
    }


def test_a_fleet_runs_end_to_end_and_every_frame_is_recorded_and_stamped_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTILLIST_TRACE", str(tmp_path / "stamps"))
    options = ("--cameras", 4, "--fps", 5, "--seconds", 8, "--probe-share", 0.1)
    with RunningSystem(tmp_path / "state", *options) as system:
        system.await_role("fleet")
        pids = [entry["pid"] for entry in system.roles().values()]
        said = [" ".join(psutil.Process(pid).cmdline()) for pid in pids]
        assert system.roles()["recorder"]["listen"] is None  # it serves metrics only
        http = system.roles()["console"]["listen"]
        names = {f"local/cam-{index}" for index in range(4)}
        wait_until(lambda: _cameras(http) == names, "all cameras")
        wait_until(lambda: get(f"http://{http}/picture/local/cam-0.jpg").startswith(b"\xff\xd8"), "a JPEG picture")
        report = system.finish()
    assert 4 * 5 * 6 <= report["frames_published"] <= 4 * 5 * 9
    assert report["frames_recorded"] == report["frames_published"]
    assert report["frames_lost"] == report["frames_pending"] == report["frames_shed"] == 0
    assert report["frames_foreign"] == report["frames_dead_lettered"] == 0
    assert report["accuracy"] >= 0.9
    assert report["wire_overhead_bytes_per_frame"] <= 44
    # A quarter is dropped, but new cameras send up to half of their first frames whole, until STRIP has a baseline.
    assert report["bytes_sent"] <= 0.9 * report["bytes_raw"]
    assert report["strip_checked"] + report["strip_shed"] >= report["frames_published"] // 10 - 4
    assert set(report["latency_s"]) == {"p50", "p95", "p99"}
    assert lost(tmp_path / "state") == 0
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    layout = Layout(tmp_path / "state")
    said += [file.read_text() for file in (*(layout.folder / "logs").iterdir(), *layout.folder.glob("*.json"))]
    secrets = [layout.secret_file, layout.pki / SHARE_FILE, *layout.keys.rglob("*.key")]
    assert len(secrets) == 6
    assert not [file for file in secrets for text in said if file.read_text().strip().rpartition(":")[2] in text]
    stamped = {what: set[str]() for what in STAMPS}
    for file in (tmp_path / "stamps").iterdir():
        for line in file.read_text().splitlines():
            _, what, frame = line.split("\t")
            stamped[what].add(frame)
    assert len(stamped["captured"]) == report["frames_published"]
    assert all(frames == stamped["captured"] for what, frames in stamped.items() if what not in ("checked", "gathered"))
    assert 0 < len(stamped["checked"]) == report["strip_checked"]
    assert stamped["gathered"] >= stamped["captured"]  # the recorder gathers other events too


def test_ctrl_c_drains_and_reports_also_without_tls_and_rights_and_says_which_probes_nobody_checks(
    tmp_path: Path,
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(shipped_bundle("scene"), bundle)
    settings = bundle / "model.toml"
    settings.write_text(settings.read_text().partition("[strip]")[0])
    options = ("--cameras", 2, "--fps", 5, "--plain", "--bundle", bundle, "--no-prometheus")
    with RunningSystem(tmp_path / "state", *options) as system:
        system.await_role("fleet")
        await_more_recorded(system, 10)
        system.interrupt()
        report = system.finish(60)
    assert report["frames_recorded"] == report["frames_published"] > 0
    assert f"the bundle {bundle} has no [strip] table" in system.output()
    said: list[str] = []
    unchecked = UpSettings(cameras=1, bundle=bundle, probe_share=0)
    note_unchecked_probes(unchecked, parse_scenario(scenario_document(unchecked, None)), said.append)
    assert said == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--source", "/nowhere.mp4"], "/nowhere.mp4"),
        (["--bundle", "/nowhere"], "/nowhere"),
        (["--drop-ratio", "2"], "drop"),
        (["--cameras", "0"], "cameras"),
        (["--scenario", "/nowhere.yaml"], "/nowhere.yaml"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, options: list[str], named: str) -> None:
    done = run_command("up", "--state", tmp_path / "state", *options)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert named in line


@pytest.mark.timeout(500)
def test_killed_roles_are_restarted_under_load_and_after_kill_9_of_up_the_next_up_loses_nothing(tmp_path: Path) -> None:
    state, cameras = tmp_path / "state", 4
    options = ("--cameras", cameras, "--fps", 10, "--probe-share", 0.1, "--no-prometheus")
    layout = Layout(state)
    told = [layout.spool / f"local/cam-{index}" / "commands.json" for index in range(cameras)]
    with RunningSystem(state, *options, "--drop-ratio", 0.25) as system:
        system.await_role("fleet")
        await_more_recorded(system, 60)
        found = json.loads(run_command("status", "--json", "--state", state).stdout)
        assert {role["name"]: role["state"] for role in found["roles"]} == dict.fromkeys(system.roles(), "up")
        assert found["cameras"] == {"online": 4}
        assert found["addresses"]["console"] == f"http://{system.roles()['console']['listen']}/"
        assert "device_ready" in run_command("logs", "processor-1", "--state", state).stdout
        second = run_command("up", "--state", state, "--seconds", 1)
        assert second.returncode == 2
        assert "in use" in second.stderr
        for role in ("bridge", "processor-1", "recorder", "kafka", "mosquitto", "fleet"):
            system.kill(role)
            await_more_recorded(system, 60)
        wait_until(lambda: any(file.exists() for file in told), "a camera without a baseline told to probe more")
        send_lossless(system, layout, CameraId("local/cam-2"))
        wait_until(lambda: told[2].exists() and "LOSSLESS" in told[2].read_text(), "the command obeyed")
        await_more_recorded(system, 10)
        children = [psutil.Process(entry["pid"]) for entry in system.roles().values()]
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    with RunningSystem(state, *options, "--drop-ratio", 0.5) as system:
        system.await_role("fleet")
        begun_ms = time.time_ns() // 10**6
        await_more_recorded(system, 20 * cameras)
        assert run_command("down", "--state", state).stdout.splitlines()[-1] == "stopped"
        assert system.finish()["frames_lost"] == 0
        assert "1 of 4 cameras obey commands instead of what this run asks, the first is local/cam-2" in system.output()
    assert run_command("down", "--state", state).returncode == 2
    status, counts = audit(state)
    assert (status, counts["frames_lost"], counts["frames_pending"]) == (0, 0, 0)
    assert counts["frames_recorded"] + counts["frames_shed"] == counts["frames_published"] >= 7 * 60 + 20 * cameras
    with sqlite3.connect(layout.database) as connection:
        query = "select distinct camera, dropped_per_block from frames where captured_ms > ? order by camera"
        sent = connection.execute(query, (begun_ms,)).fetchall()
    assert sent == [(f"local/cam-{index}", 32) for index in range(cameras)]


def send_lossless(system: RunningSystem, layout: Layout, camera: CameraId) -> None:
    """Publish the camera's signed command to send in the profile `lossless`."""
    host, _, port = system.roles()["mosquitto"]["listen"].partition(":")
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.tls_set_context(role_tls(layout.pki, "admin").context())
    client.connect(host, int(port))
    client.loop_start()
    signed = sign_message(layout.camera_key(camera), Command(issued_ms=time.time_ns() // 10**6, profile=LOSSLESS))
    client.publish(mqtt_topic(camera, Channel.SETTINGS), signed, qos=1, retain=True).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()
