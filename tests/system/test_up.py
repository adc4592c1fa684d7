"""`pointillist up` whose parts and whose whole are killed, and its refusals; `test_observability` ends one in order."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import psutil
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks.harness.hostile import publish_hostile
from benchmarks.harness.system import RunningSystem, audit
from consumers.database.queries import open_records
from infra.pki.roles import role_tls
from infra.state_folder import Layout
from schemas.identity import CameraId
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import LOSSLESS, Command
from schemas.topics import Channel, mqtt_topic
from tests.commands import run_command
from tests.system.records import await_more_recorded
from tests.waiting import wait_until

pytestmark = [pytest.mark.brokers, pytest.mark.slow]


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
def test_killed_roles_are_restarted_under_load_and_after_kill_9_of_up_the_next_up_loses_nothing_to_hostile_payloads(
    tmp_path: Path,
) -> None:
    state, cameras, hostile = tmp_path / "state", 4, 1500
    config = tmp_path / "up.toml"
    config.write_text('[processor]\nbackend = "torch"\n')  # no trials of all backends at every restart
    options = ("--cameras", cameras, "--fps", 5, "--probe-share", 0.1, "--no-prometheus", "--config", config)
    layout = Layout(state)
    told = [layout.spool / f"local/cam-{index}" / "commands.json" for index in range(cameras)]
    with RunningSystem(state, *options, "--drop-ratio", 0.25) as system:
        system.await_role("fleet")
        await_more_recorded(system)
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
            await_more_recorded(system)
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
        publish_hostile(system, hostile, [CameraId(f"local/cam-{index}") for index in range(cameras)])
        assert run_command("down", "--state", state).stdout.splitlines()[-1] == "stopped"
        report = system.finish()
        assert report["frames_lost"] == report["frames_dead_lettered"] == 0
        assert report["frames_foreign"] > hostile / 2
        assert "1 of 4 cameras obey commands instead of what this run asks, the first is local/cam-2" in system.output()
    assert run_command("down", "--state", state).returncode == 2
    status, counts = audit(state)
    assert (status, counts["frames_lost"], counts["frames_pending"]) == (0, 0, 0)
    assert counts["frames_recorded"] + counts["frames_shed"] == counts["frames_published"] >= 7 * 20 + 20 * cameras
    with open_records(layout.database_url) as records:
        assert records.duplicates() > 0
    with sqlite3.connect(layout.database) as connection:
        query = "select distinct camera, dropped_per_block from frames where captured_ms > ? and camera like ?"
        sent = connection.execute(query, (begun_ms, "local/cam-%")).fetchall()
    assert sorted(sent) == [(f"local/cam-{index}", 32) for index in range(cameras)]


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
