"""The command `pointillist camera settings` and the console's commands, with a real broker: apply, keep and reset."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from typer.testing import Result

from consumers.console.data.commands import Commands, changes_of
from consumers.console.data.sent_commands import SentCommands
from consumers.console.data.store import Store
from infra.cli import camera_settings
from infra.local.mosquitto import Mosquitto
from infra.state_folder import Layout
from schemas.errors import BrokerError, ConfigError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.messages.frame import Encoding, sign_message
from schemas.pointillist_pb2 import Command, CommandState, Meta, ProbeRequest, Turn
from schemas.topics import Channel, mqtt_topic
from schemas.transport.access import MqttAccess
from tests.commanded_camera import CommandedCamera
from tests.consumers.console_rig import OWNER
from tests.infra.command_line import refusal, run
from tests.producers.scripted_broker import NOT_AUTHORIZED, scripted_broker
from tests.waiting import wait_until

pytestmark = pytest.mark.brokers

SECRET = "6b" * 32
KEYS = KeyRing(bytes.fromhex(SECRET))
CAMERA = CameraId("lab/commanded")
RATES = "1/3600 to 1000 frames per second, or 0 for the camera's own rate"


def commanded_camera(mosquitto: Mosquitto, folder: Path) -> CommandedCamera:
    return CommandedCamera(mosquitto, folder, CAMERA, KEYS)


@pytest.fixture
def camera(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[CommandedCamera]:
    found = commanded_camera(mosquitto, tmp_path)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(f"sqlite:///{tmp_path}/console.sqlite")
    found.prepare()
    yield found
    found.close()


def commands(mosquitto: Mosquitto, store: Store) -> Commands:
    """Return the commands of a console that has started with this store."""
    keys = KeyRing(Roots.of_fleet(bytes.fromhex(SECRET)).of(Role.CONSOLE))
    return Commands(MqttAccess(host=mosquitto.host, port=mosquitto.port), keys, store.engine)


def run_settings(mosquitto: Mosquitto, *options: str) -> Result:
    address = f"{mosquitto.host}:{mosquitto.port}"
    return run("camera", "settings", CAMERA, "--mqtt", address, *options, POINTILLIST_FLEET_SECRET=SECRET)


def settings(done: Result) -> dict[str, list[object]]:
    rows = json.loads(done.stdout)["settings"]
    return {row["setting"]: [row["is"], row["commanded"], row["asked"]] for row in rows}


def test_commands_of_a_camera_are_listed_and_reset(mosquitto: Mosquitto, camera: CommandedCamera) -> None:
    now_ms = time.time_ns() // 10**6
    command = Command(issued_ms=now_ms - 2, dropped_per_block=32, enabled=False)
    camera.publish(Channel.SETTINGS, sign_message(camera.key, command))
    request = ProbeRequest(issued_ms=now_ms - 1, probe_share=0.5)
    camera.publish(Channel.PROBES, sign_message(camera.key, request))
    wait_until(lambda: camera.control.encoding == Encoding(32, 0.5), "both commands applied")

    def is_announced() -> bool:
        shown = run_settings(mosquitto, "--json")  # a machine under load may take longer than its time limit
        return shown.exit_code == 0 and settings(shown)["probe_share"][-1] == 0.5

    wait_until(is_announced, "both commands announced")

    shown = run_settings(mosquitto, "--json")
    assert shown.exit_code == 0, shown.output
    assert settings(shown) == {
        "dropped_per_block": [32, 32, None],
        "probe_share": [0.5, None, 0.5],
        "profile": ["raw", None, None],
        "frames_per_second": [2.0, None, None],
        "enabled": [False, False, None],
    }
    reset = run_settings(mosquitto, "--reset", "--wait", "60")
    assert reset.exit_code == 0, reset.output
    assert "it uses its own settings" in reset.stdout
    assert (camera.control.encoding, camera.control.enabled) == (Encoding(16, 0.05), True)
    assert settings(run_settings(mosquitto, "--json"))["dropped_per_block"] == [16, None, None]


def test_a_reset_is_retained_for_an_offline_camera(
    mosquitto: Mosquitto, camera: CommandedCamera, tmp_path: Path
) -> None:
    camera._client.unsubscribe(mqtt_topic(CAMERA, Channel.SETTINGS))
    camera.describe()
    done = run_settings(mosquitto, "--reset", "--wait", "0.5", "--state", str(tmp_path))
    assert done.exit_code == 1
    (line,) = Store(Layout(tmp_path).console_url).newest_operations()
    sent = "sent; the camera has not confirmed within 0.5 s"
    assert (line.who, line.what, line.subject, line.detail, line.outcome) == (
        OWNER, "command", CAMERA, "own settings", sent
    )  # fmt: skip
    assert "it resets on its return" in done.stdout
    back = commanded_camera(mosquitto, tmp_path)
    try:
        wait_until(lambda: back.control.state.issued_ms, "the reset applied")
    finally:
        back.close()


def test_settings_that_the_camera_has_not_signed_are_rejected(mosquitto: Mosquitto, camera: CommandedCamera) -> None:
    camera.publish(Channel.META, Meta(boot_id=1, dropped_per_block=0).SerializeToString())
    assert "the tag does not match" in refusal(run_settings(mosquitto))
    camera.publish(Channel.META, b"")
    assert "retains nothing" in refusal(run_settings(mosquitto))


def test_a_console_s_command_is_applied_and_contains_the_earlier_settings(
    mosquitto: Mosquitto, camera: CommandedCamera, store: Store
) -> None:
    camera.describe()
    console = commands(mosquitto, store)
    assert console.send(CAMERA, changes_of({"drop_ratio": "0.5"}), 60.0) == "confirmed"
    assert console.send(CAMERA, changes_of({"enabled": "false"}), 60.0) == "confirmed"
    assert console.send(CAMERA, changes_of({"fps": "0.5"}), 60.0) == "confirmed"
    now = camera.control.state
    assert (now.dropped_per_block, now.enabled, camera.control.rate) == (32, False, 0.5)
    # A camera that connects later receives only the last command, which contains both settings.
    late = commanded_camera(mosquitto, camera.folder / "late")
    try:
        wait_until(lambda: late.control.state.HasField("enabled"), "the retained command")
        assert (late.control.state.dropped_per_block, late.control.state.enabled) == (32, False)
        assert late.control.rate == 0.5
    finally:
        late.close()
    assert console.send(CAMERA, changes_of({"fps": 0}), 60.0) == "confirmed"
    assert (camera.control.rate, camera.control.state.dropped_per_block) == (2.0, 32)
    assert console.reset(CAMERA, 60.0) == "confirmed"
    assert not camera.control.state.HasField("dropped_per_block")


async def test_a_console_that_cannot_read_a_camera_s_settings_sends_no_command(store: Store) -> None:
    # A command without the settings in force would replace them.
    async with scripted_broker() as broker:
        broker.suback = NOT_AUTHORIZED
        console = Commands(MqttAccess("127.0.0.1", broker.port), KEYS, store.engine)
        with pytest.raises(
            BrokerError, match="a subscription to pointillist/v1/lab/commanded/meta, got 'Not authorized'"
        ):
            await asyncio.to_thread(console.send, CAMERA, changes_of({"fps": 1}), 0.0)
        assert broker.published == []


def test_a_command_is_applied_after_one_dated_in_the_future(
    mosquitto: Mosquitto, camera: CommandedCamera, store: Store
) -> None:
    ahead_ms = time.time_ns() // 10**6 + 60_000
    assert camera.control.command(sign_message(camera.key, Command(enabled=False, issued_ms=ahead_ms)))
    camera.describe()
    console = commands(mosquitto, store)
    assert console.send(CAMERA, changes_of({"drop_ratio": "0.5"}), 60.0) == "confirmed"
    assert (camera.control.state.dropped_per_block, camera.control.state.enabled) == (32, False)
    assert console.reset(CAMERA, 60.0) == "confirmed"
    assert not camera.control.state.HasField("enabled")
    assert console.send(CAMERA, changes_of({"fps": "0.5"}), 60.0) == "confirmed"
    assert not camera.control.state.HasField("enabled")


def test_a_command_keeps_the_settings_of_one_that_the_camera_has_not_announced(
    mosquitto: Mosquitto, tmp_path: Path, store: Store
) -> None:
    earlier = commanded_camera(mosquitto, tmp_path / "earlier")
    earlier.describe()
    earlier.stop()
    console = commands(mosquitto, store)
    assert console.send(CAMERA, changes_of({"enabled": "false"}), 0.1).startswith("sent")
    console = commands(mosquitto, store)  # the console was restarted
    assert console.send(CAMERA, changes_of({"drop_ratio": "0.5"}), 0.1).startswith("sent")
    late = commanded_camera(mosquitto, tmp_path / "late")
    try:
        wait_until(lambda: late.control.state.HasField("dropped_per_block"), "the retained command")
        assert late.control.state.HasField("enabled")
        assert (late.control.state.dropped_per_block, late.control.state.enabled) == (32, False)
    finally:
        late.close()
    assert console.reset(CAMERA, 0.1).startswith("sent")
    console = commands(mosquitto, store)
    assert console.send(CAMERA, changes_of({"fps": "0.5"}), 0.1).startswith("sent")
    latest = commanded_camera(mosquitto, tmp_path / "latest")
    try:
        wait_until(lambda: latest.control.rate == 0.5, "the retained command")
        assert latest.control.state.asked_ms > 0  # the reset too
        assert not latest.control.state.HasField("enabled")
    finally:
        latest.close()


def test_a_command_counts_as_sent_if_the_console_s_database_fails_after_it(
    mosquitto: Mosquitto, camera: CommandedCamera, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    console = commands(mosquitto, store)
    monkeypatch.setattr(SentCommands, "keep", fails)
    monkeypatch.setattr(SentCommands, "drop", fails)
    assert console.send(CAMERA, changes_of({"drop_ratio": "0.5"}), 60.0) == "confirmed"
    assert console.reset(CAMERA, 60.0) == "confirmed"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"drop_ratio": "0.9"}, "drop_ratio: expected a fraction from 0 to 0.875, got '0.9'"),
        ({"probe_share": "nan"}, "probe_share: expected a fraction from 0 to 1, got 'nan'"),
        ({"profile": "gif"}, "profile: expected raw, lossless, video, got 'gif'"),
        ({"enabled": "maybe"}, "enabled: expected true or false, got 'maybe'"),
        ({"fps": "1001"}, f"fps: expected {RATES}, got '1001'"),
        ({"fps": 1 / 3601}, f"fps: expected {RATES}, got '{1 / 3601}'"),
        ({"fps": "nan"}, f"fps: expected {RATES}, got 'nan'"),
        ({"fps": True}, f"fps: expected {RATES}, got 'True'"),
        ({"fps": 10**400}, f"fps: expected {RATES}, got '1{'0' * 39}'"),
        ({"speed": "1"}, "setting: expected drop_ratio, probe_share, profile, enabled or fps, got 'speed'"),
        ({}, "settings: expected drop_ratio, probe_share, profile, enabled or fps, got none"),
    ],
)
def test_an_invalid_command_is_one_error_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changes_of(values)
    assert str(caught.value) == message


def test_an_impossible_time_of_a_camera_is_not_shown() -> None:
    meta = Meta(turn=Turn(at_ms=2**53 - 1), command_state=CommandState(issued_ms=2**64 - 1, asked_ms=1))
    table = camera_settings._table("lab/commanded", meta)
    assert table.title == "lab/commanded, as announced at –"
    headers = [str(column.header) for column in table.columns]
    assert headers[2:] == ["by the command of –", "by the request of 1970-01-01 00:00:00 UTC"]
