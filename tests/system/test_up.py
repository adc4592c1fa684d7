"""`pointillist up`: invalid input, kills of its roles and of itself, and the next run from its start to Ctrl-C."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks.harness.hostile import publish_hostile
from benchmarks.harness.system import COMMAND, Result, RunningSystem, audit
from benchmarks.harness.videos import write_video
from consumers.database.queries import open_records
from infra.audit.audit import audit as audit_boots
from infra.pki.roles import SHARE_FILE, role_tls
from infra.state_folder import Layout
from producers.spool import scan_spool
from schemas.identity import CameraId, Identity
from schemas.messages.frame import sign_message
from schemas.pixels.packing import Picture
from schemas.pointillist_pb2 import CHECKED, LOSSLESS, SHED, Command
from schemas.runtime.trace import STAMPS
from schemas.topics import Channel, mqtt_topic
from tests.commands import run_command
from tests.system.monitored_fleet import MonitoredFleet, options_of_fleet
from tests.system.records import await_more_recorded, recorded_frames
from tests.waiting import wait_until

pytestmark = [pytest.mark.brokers, pytest.mark.slow]
FRAMES = 80
WIDTH, HEIGHT = 320, 240


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--source", "/nowhere.mp4"], "/nowhere.mp4"),
        (["--bundle", "/nowhere"], "/nowhere"),
        (["--drop-ratio", "2"], "drop"),
        (["--cameras", "-1"], "cameras"),
        (["--scenario", "/nowhere.yaml"], "/nowhere.yaml"),
    ],
)
def test_invalid_input_exits_with_one_line_and_status_2(tmp_path: Path, options: list[str], named: str) -> None:
    done = run_command("up", "--state", tmp_path / "state", *options)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert named in line


@pytest.mark.timeout(1200)
def test_no_frame_is_lost_when_roles_and_up_are_killed_and_payloads_are_hostile(
    fleet: MonitoredFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, hostile = fleet.state, 1500
    layout = Layout(state)
    cameras = [CameraId(f"local/cam-{index}") for index in range(4)]
    command_files = [layout.spool / camera / "commands.json" for camera in cameras]
    with fleet.system as system:

        def all_well() -> bool:
            now = json_status(state)
            states = {role["name"]: role["state"] for role in now["roles"]}
            return states == dict.fromkeys(system.roles(), "up") and now["cameras"] == {"online": 4}

        wait_until(all_well, "all roles up and all cameras online", every_s=0.5)
        assert json_status(state)["addresses"]["console"] == f"http://{system.roles()['console']['listen']}/"
        assert "device_ready" in run_command("logs", "processor-1", "--lines", 1000, "--state", state).stdout
        second = run_command("up", "--state", state, "--seconds", 1)
        assert second.returncode == 2
        assert "in use" in second.stderr
        with video_cameras(state, tmp_path) as camera_run:
            wait_until(lambda: recorded_frames(layout, "yard/%") >= 20, "frames of the clip", 90, every_s=0.1)
            for role in ("processor-1", "bridge", "recorder", "kafka", "mosquitto", "fleet"):
                system.kill(role)
                await_more_recorded(system)
            with suppress(AssertionError):
                wait_until(lambda: recorded_frames(layout, "yard/%") == 2 * FRAMES, within_s=120)
            assert recorded_frames(layout, "yard/%") == 2 * FRAMES, f"of the clip, with all frames: {audit(state)}"
            assert camera_run.wait(240) == 0  # it ends with its clips
        wait_until(
            lambda: any(file.exists() for file in command_files),
            "a request for more probes of a camera without a baseline",
        )
        send_lossless(system, layout, cameras[2])
        wait_until(
            lambda: command_files[2].exists() and "LOSSLESS" in command_files[2].read_text(), "the command obeyed"
        )
        await_more_recorded(system, 10)
        children = [psutil.Process(entry["pid"]) for entry in system.roles().values()]
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    monkeypatch.setenv("POINTILLIST_TRACE", str(tmp_path / "stamps"))
    with RunningSystem(
        state, *options_of_fleet(tmp_path, 0.5), "--no-prometheus", "--fleets", 2, "--drain-s", 240
    ) as system:
        system.await_role("fleet-2")
        begun_ms = time.time_ns() // 10**6
        # Frames of the earlier run come first. While processors or STRIP lag behind, the bridge confirms no new ones.
        wait_until(
            lambda: all(recorded_frames(layout, camera, begun_ms) >= 20 for camera in cameras),
            "20 frames of each camera", within_s=150, every_s=0.5,
        )  # fmt: skip
        wait_until(
            lambda: confirmed_boots(tmp_path / "stamps") == len(cameras),
            "a confirmed frame of each camera", within_s=240, every_s=0.5,
        )  # fmt: skip
        assert audit(state)[1]["frames_foreign"] == 0
        publish_hostile(system, hostile, cameras)
        pids = [entry["pid"] for entry in system.roles().values()]
        shown = [" ".join(psutil.Process(pid).cmdline()) for pid in pids]
        system.interrupt()
        report = system.finish(450)
    check_report(report)
    assert report["frames_foreign"] > hostile / 2
    assert (
        "1 of 4 cameras obey earlier commands instead of the settings of this run, the first is local/cam-2"
        in system.output()
    )
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert run_command("down", "--state", state).returncode == 2
    status, counts = audit(state)
    # `up` waits for its own cameras only: valid frames of the hostile ones may still be in Kafka.
    unfinished = [boot for boot in audit_boots(layout).boots if boot.pending or boot.lost]
    pending = sum(len(boot.pending) for boot in unfinished if boot.camera_id.startswith("local/intruder-"))
    found = (status, counts["frames_lost"], counts["frames_pending"], counts["frames_shed"])
    assert found == (0, 0, pending, 0), f"{unfinished}\n{system.output()}"
    assert counts["frames_recorded"] == counts["frames_published"] - pending
    assert counts["frames_recorded"] >= 7 * 20 + 20 * len(cameras) + 2 * FRAMES
    with open_records(layout.database_url) as records:
        assert records.duplicates() > 0
    with sqlite3.connect(layout.database) as connection:
        query = "select sum(frame_bytes), sum(strip in (?, ?)) from frames where camera like 'yard/%'"
        clips, probes = connection.execute(query, (CHECKED, SHED)).fetchone()
        assert clips < 0.1 * 2 * FRAMES * HEIGHT * WIDTH * 3
        assert probes >= 5
        query = "select distinct camera, dropped_per_block from frames where captured_ms > ? and camera like ?"
        sent = connection.execute(query, (begun_ms, "local/cam-%")).fetchall()
    assert sorted(sent) == [(camera, 32) for camera in cameras]
    check_secrets(layout, shown)
    check_stamps(tmp_path / "stamps", report, layout)


def json_status(state: Path) -> dict[str, Any]:
    """Return what `pointillist status --json` prints."""
    found: dict[str, Any] = json.loads(run_command("status", "--json", "--state", state).stdout)
    return found


def check_report(report: Result) -> None:
    """Check that a run with four cameras recorded all frames, in few bytes, with right verdicts and STRIP checks."""
    assert report["frames_recorded"] == report["frames_published"] > 80
    assert report["frames_lost"] == report["frames_pending"] == report["frames_shed"] == 0
    assert report["frames_dead_lettered"] == 0
    assert report["accuracy"] >= 0.9
    assert report["wire_overhead_bytes_per_frame"] <= 44
    # New cameras send up to half of their first frames whole, until STRIP has a baseline.
    assert report["bytes_sent"] <= 0.92 * report["bytes_raw"]
    assert report["strip_checked"] + report["strip_shed"] >= report["frames_published"] // 10 - 4
    assert set(report["latency_s"]) == {"p50", "p95", "p99"}


def check_secrets(layout: Layout, shown: list[str]) -> None:
    """Check that no key is in a command line, a log or a report."""
    shown += [file.read_text() for file in (*(layout.folder / "logs").iterdir(), *layout.folder.glob("*.json"))]
    secrets = [layout.secret_file, layout.pki / SHARE_FILE, *layout.keys.rglob("*.key")]
    assert len(secrets) >= 6
    assert not [file for file in secrets for text in shown if file.read_text().strip().rpartition(":")[2] in text]


def check_stamps(folder: Path, report: Result, layout: Layout) -> None:
    """Check that each step has stamped exactly the frames of this run's boots, besides frames of earlier boots."""
    stamped = stamped_frames(folder)
    assert len(stamped["spooled"]) == report["frames_published"]
    boots = {boot_of(frame) for frame in stamped["spooled"]}
    assert len(boots) == 4
    own = {what: {frame for frame in frames if boot_of(frame) in boots} for what, frames in stamped.items()}
    exact = own.keys() - {"captured", "taken", "sealed", "checked", "confirmed"}
    wrong = {what: Counter(map(boot_of, own[what] ^ own["spooled"])) for what in exact if own[what] != own["spooled"]}
    assert not wrong, f"frames of each boot with a missing stamp: {wrong}"
    # Ctrl-C may come between the capture of a camera's last frame and its spool.
    assert own["captured"] >= own["spooled"]
    assert len(own["captured"] - own["spooled"]) <= len(boots)
    assert own["checked"] <= own["spooled"]
    assert len(own["checked"]) == report["strip_checked"] > 0
    # While processors lag, a fleet ends before the last confirmations. Its spools keep those frames.
    kept = {
        str(Identity(boot.camera_id, boot.boot_id, seq)) for boot in scan_spool(layout.spool) for seq in boot.waiting
    }
    assert own["confirmed"] <= own["spooled"]
    assert own["spooled"] - own["confirmed"] <= kept
    assert {boot_of(frame) for frame in own["confirmed"]} == boots


def stamped_frames(folder: Path) -> dict[str, set[str]]:
    """Return the frames with each stamp. Boots of an earlier run can have frames with late stamps."""
    stamped = {what: set[str]() for what in STAMPS}
    for file in folder.iterdir():
        # A reader can meet the last line half written.
        for line in file.read_text().rpartition("\n")[0].splitlines():
            _, what, frame = line.split("\t")
            stamped[what].add(frame)
    return stamped


def confirmed_boots(folder: Path) -> int:
    """Return the number of this run's boots with a confirmed frame."""
    stamped = stamped_frames(folder)
    return len({boot_of(frame) for frame in stamped["confirmed"] & stamped["spooled"]})


def boot_of(frame: str) -> str:
    """Return the camera and the boot id of a frame's identity as text."""
    return frame.rpartition("/")[0]


@contextmanager
def video_cameras(state: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start `camera run` with two cameras that send a clip in the profile `video`: in short groups and in one."""
    clip = write_video(folder / "clip.mp4", moving_pattern())
    film = {"source": {"file": str(clip)}, "fps": 10, "probe_share": 0.1, "profile": "video"}
    groups = {"door": {"group_frames": 15}, "yard": {"group_frames": 1000, "group_s": 60}}
    listed = folder / "cameras.yaml"
    cameras = [{"name": name, "video": video, **film} for name, video in groups.items()]
    listed.write_text(yaml.safe_dump({"site": "yard", "cameras": cameras}))
    with (folder / "cameras.log").open("wb") as log:
        command = [*COMMAND, "camera", "run", str(listed), "--state", str(state), "--drain-s", "200"]
        with subprocess.Popen(command, stdout=log, stderr=log) as running:
            try:
                yield running
            finally:
                running.kill()


def moving_pattern() -> Iterator[Picture]:
    down, right = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(FRAMES):
        luma = 128 + 60 * np.sin((right + 4 * number) / 31) + 50 * np.sin((down - 2 * number) / 23)
        yield np.stack([luma, 255 - luma, luma // 2], axis=2).clip(0, 255).astype(np.uint8)


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
