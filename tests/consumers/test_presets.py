"""Presets and switches of groups: at a real broker, under a drop policy, without a broker; page and API."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from consumers.console.api.routes import ROOT
from consumers.console.background.switching import MOST_A_ROUND, STEERED, switch
from consumers.console.data.commands import OBEYED_S, SUPERSEDED
from consumers.console.data.drop_policies import new_policy
from consumers.console.data.presets import MOST_PRESETS, new_preset, save_preset, words_of
from consumers.console.data.switches import MOST_SWITCHES, Switch, add_switch, read_switches, supersede
from consumers.records.rows import CameraRow
from infra.local.mosquitto import Mosquitto
from schemas.clock import monotonic_ms
from schemas.errors import BrokerError, ConfigError, UserError
from schemas.identity import CameraId
from schemas.pointillist_pb2 import ONLINE, Meta
from tests.commanded_camera import CommandedCamera
from tests.consumers.console_rig import OWNER, ConsoleRig
from tests.consumers.recorder_rig import KEYS, verdict
from tests.waiting import wait_until

PRESETS, SWITCHES = f"{ROOT}/presets", f"{ROOT}/switches"
DOOR, GATE = "north/door", "north/gate"


class FakeCommands:
    """A stand-in for commands that records them."""

    def __init__(self) -> None:
        self.away = False
        self.without_key: set[str] = set()
        self.sent: list[tuple[str, dict[str, object]]] = []
        self.before_send: Callable[[], object] = lambda: None

    def send(
        self,
        camera: str,
        changes: dict[str, object],
        wait_s: float = OBEYED_S,
        is_due: Callable[[], bool] | None = None,
    ) -> str:
        self.before_send()
        if is_due is None:
            self.sent.append((camera, changes))
            return "confirmed"
        assert not wait_s
        if not is_due():
            return SUPERSEDED
        if self.away:
            raise BrokerError("expected an MQTT broker at 127.0.0.1:1")
        if camera in self.without_key:
            raise UserError(f"{camera}: expected a key, got none")
        self.sent.append((camera, changes))
        return "sent"

    def reset(self, camera: str, wait_s: float = OBEYED_S, is_due: Callable[[], bool] | None = None) -> str:
        return self.send(camera, {}, wait_s, is_due)


def announce(console: ConsoleRig, camera: str, **state: object) -> None:
    """Receive a camera's meta with its settings and the command that it has obeyed."""
    now_ms = time.time_ns() // 10**6
    meta = Meta(boot_id=1, dropped_per_block=16, frames_per_second=2.0)
    for name, value in state.items():
        setattr(meta.command_state, name, value)
    row = CameraRow(camera, ONLINE, now_ms, "", b"", meta.SerializeToString(), now_ms)
    console.context.fleet.record_status(row, 0, monotonic_ms())
    console.tick()


@pytest.fixture
def commands(console: ConsoleRig) -> FakeCommands:
    """Return commands for two cameras of one site and one of another."""
    commands = FakeCommands()
    console.context.commands = commands  # type: ignore[assignment]  # the two methods that switches call
    for camera in (DOOR, GATE, "south/vault"):
        console.show([verdict(0)], camera)
        announce(console, camera)
    return commands


def post(console: ConsoleRig, path: str, **body: object) -> tuple[int, str]:
    answer = console.browser().post(path, json=body)
    found = answer.json()
    return answer.status_code, found.get("outcome") or found.get("error")


def outcomes_shown(console: ConsoleRig) -> dict[str, list[str]]:
    """Return the cameras by outcome of the newest switch, without empty outcomes."""
    newest = console.browser().get(SWITCHES).json()[0]
    return {outcome: cameras for outcome, cameras in newest["outcomes"].items() if cameras}


async def test_a_switch_commands_the_cameras_of_a_group_and_lists_those_that_obeyed(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    assert post(console, PRESETS, name="night", drop_ratio=0.5, fps=1) == (200, "saved")
    assert console.browser().get(PRESETS).json()[0]["changes"] == {"dropped_per_block": 32, "frames_per_second": 1.0}
    assert post(console, SWITCHES, cameras="north/*", preset="night") == (200, "switched")
    assert outcomes_shown(console) == {"not sent yet": [DOOR, GATE]}
    assert not await switch(console.context)
    assert sorted(camera for camera, _ in commands.sent) == [DOOR, GATE]
    assert all(changes == {"dropped_per_block": 32, "frames_per_second": 1.0} for _, changes in commands.sent)
    assert outcomes_shown(console) == {"not confirmed": [DOOR, GATE]}
    later_ms = time.time_ns() // 10**6 + 10
    announce(console, DOOR, dropped_per_block=32, frames_per_second=1.0, issued_ms=later_ms)
    announce(console, GATE, dropped_per_block=32, frames_per_second=4.0, issued_ms=later_ms)
    assert outcomes_shown(console) == {"obeyed": [DOOR], "changed since": [GATE]}
    assert not await switch(console.context)
    assert len(commands.sent) == 2
    noted = {(each["subject"], each["outcome"]) for each in console.browser().get(f"{ROOT}/operations").json()}
    assert noted == {("night", "saved"), ("north/*", "switched"), (DOOR, "sent"), (GATE, "sent")}


async def test_a_switch_to_own_settings_resets_the_cameras(console: ConsoleRig, commands: FakeCommands) -> None:
    assert post(console, SWITCHES, cameras=GATE, preset="own settings") == (200, "switched")
    await switch(console.context)
    assert commands.sent == [(GATE, {})]
    later_ms = time.time_ns() // 10**6 + 10
    announce(console, GATE, frames_per_second=4.0, issued_ms=later_ms)
    assert outcomes_shown(console) == {"changed since": [GATE]}
    announce(console, GATE, issued_ms=later_ms + 1)
    assert outcomes_shown(console) == {"obeyed": [GATE]}


async def test_a_switch_to_the_own_rate_is_obeyed_by_a_camera_without_a_commanded_rate(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    assert post(console, SWITCHES, cameras="north/*", settings={"fps": 0, "enabled": True}) == (200, "switched")
    await switch(console.context)
    later_ms = time.time_ns() // 10**6 + 10
    announce(console, DOOR, enabled=True, issued_ms=later_ms)
    announce(console, GATE, enabled=True, frames_per_second=4.0, issued_ms=later_ms)
    assert outcomes_shown(console) == {"obeyed": [DOOR], "changed since": [GATE]}


async def test_a_drop_policy_keeps_its_ratio_and_other_settings_are_sent(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    policy = new_policy({"cameras": GATE, "lowest": 0.25, "highest": 0.5}, OWNER, 5)
    console.context.drop_plan.adopt((policy,))
    post(console, SWITCHES, cameras="north/*", settings={"drop_ratio": 0.75, "enabled": False})
    await switch(console.context)
    assert sorted(commands.sent) == [(DOOR, {"dropped_per_block": 48, "enabled": False}), (GATE, {"enabled": False})]
    announce(console, GATE, enabled=False, dropped_per_block=16, issued_ms=time.time_ns() // 10**6 + 10)
    assert outcomes_shown(console)["obeyed"] == [GATE]
    post(console, SWITCHES, cameras=GATE, settings={"drop_ratio": 0.75})
    await switch(console.context)
    assert len(commands.sent) == 2
    assert outcomes_shown(console) == {"refused": [GATE]}
    assert console.browser().get(SWITCHES).json()[0]["refused"] == {GATE: STEERED}


async def test_an_unreachable_broker_delays_all_commands_and_a_missing_key_only_its_own(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    commands.away, commands.without_key = True, {DOOR}
    post(console, SWITCHES, cameras="north/*", settings={"enabled": False})
    assert not await switch(console.context)
    assert outcomes_shown(console) == {"not sent yet": [DOOR, GATE]}
    commands.away = False
    await switch(console.context)
    assert commands.sent == [(GATE, {"enabled": False})]
    assert outcomes_shown(console) == {"not confirmed": [GATE], "refused": [DOOR]}
    console.tick(later_ms=10**7)
    assert outcomes_shown(console) == {"away": [GATE], "refused": [DOOR]}


async def test_a_newer_switch_replaces_unsent_commands_of_its_cameras(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    post(console, SWITCHES, cameras="north/*", settings={"enabled": False})
    post(console, SWITCHES, cameras=GATE, settings={"enabled": True})
    await switch(console.context)
    assert sorted(commands.sent, key=str) == [(DOOR, {"enabled": False}), (GATE, {"enabled": True})]


@pytest.mark.parametrize("body", [{"enabled": False}, {"reset": True}])
async def test_a_later_command_to_one_camera_replaces_its_unsent_commands_of_switches(
    console: ConsoleRig, commands: FakeCommands, body: dict[str, object]
) -> None:
    post(console, SWITCHES, cameras="north/*", settings={"fps": 1})
    post(console, SWITCHES, cameras=DOOR, settings={"fps": 2})
    assert post(console, f"{ROOT}/cameras/{GATE}/command", nonsense=1)[0] == 400
    assert outcomes_shown(console) == {"not sent yet": [DOOR]}
    assert post(console, f"{ROOT}/cameras/{GATE}/command", **body) == (200, "confirmed")
    await switch(console.context)
    own: dict[str, object] = {} if "reset" in body else body
    assert commands.sent == [(GATE, own), (DOOR, {"frames_per_second": 2.0})]


async def test_a_later_command_replaces_that_of_a_switch_in_the_round_that_is_being_sent(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    post(console, SWITCHES, cameras=GATE, settings={"enabled": True})
    commands.before_send = lambda: supersede(console.context.store.engine, GATE)
    await switch(console.context)
    assert not commands.sent
    assert outcomes_shown(console) == {"not confirmed": [GATE]}


async def test_a_large_group_is_commanded_in_rounds(console: ConsoleRig, commands: FakeCommands) -> None:
    names = [f"yard/{number:03}" for number in range(MOST_A_ROUND + 3)]
    engine = console.context.store.engine
    add_switch(engine, Switch(0, "yard/*", "", {"enabled": False}, OWNER, 5, names))
    assert await switch(console.context)
    assert len(commands.sent) == MOST_A_ROUND
    assert not await switch(console.context)
    assert sorted(camera for camera, _ in commands.sent) == names
    assert not read_switches(engine, unfinished=True)


def test_only_the_newest_switches_are_kept(console: ConsoleRig) -> None:
    engine = console.context.store.engine
    numbers = [add_switch(engine, Switch(0, GATE, "", {}, OWNER, 5, [GATE])) for _ in range(MOST_SWITCHES + 2)]
    assert [each.number for each in read_switches(engine)] == numbers[:1:-1]


async def test_a_switch_with_unsent_commands_is_kept_beyond_the_bound(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    engine = console.context.store.engine
    names = [f"yard/{number:03}" for number in range(MOST_SWITCHES + 5)]
    for name in names:
        add_switch(engine, Switch(0, name, "", {"enabled": False}, OWNER, 5, [name]))
    await switch(console.context)
    assert sorted(camera for camera, _ in commands.sent) == names
    numbers = [add_switch(engine, Switch(0, GATE, "", {}, OWNER, 5, [GATE])) for _ in range(MOST_SWITCHES)]
    assert [each.number for each in read_switches(engine)] == numbers[::-1]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (PRESETS, {"name": "Night!", "enabled": True}, "name: expected 1 to 40"),
        (PRESETS, {"name": "own settings", "enabled": True}, "name: expected another one"),
        (PRESETS, {"name": "night"}, "settings: expected drop_ratio"),
        (PRESETS, {"name": "night", "drop_ratio": 2}, "drop_ratio: expected a fraction"),
        (f"{PRESETS}/remove", {"name": "dawn"}, "preset: expected one of the list, got dawn"),
        (SWITCHES, {"cameras": "north/*", "preset": "dawn"}, "preset: expected one of the list or 'own settings'"),
        (SWITCHES, {"cameras": "east/*", "preset": "own settings"}, "cameras: expected a group with cameras"),
        (SWITCHES, {"cameras": "north/*", "settings": {}, "preset": "x"}, "settings: expected an object"),
        (SWITCHES, {"cameras": "north/*", "settings": {}}, "settings: expected drop_ratio"),
        (SWITCHES, {"cameras": "north/*", "sets": {}}, "body: expected cameras, preset, settings, got 'sets'"),
    ],
)
def test_invalid_requests_are_rejected_in_one_line_and_change_nothing(
    console: ConsoleRig, commands: FakeCommands, path: str, body: dict[str, object], expected: str
) -> None:
    status, error = post(console, path, **body)
    assert status == 400
    assert error.startswith(expected)
    assert "\n" not in error
    assert console.browser().get(PRESETS).json() == console.browser().get(SWITCHES).json() == []


def test_a_console_without_a_broker_switches_nothing(console: ConsoleRig) -> None:
    announce(console, GATE)
    status, error = post(console, SWITCHES, cameras=GATE, preset="own settings")
    assert (status, error.startswith("mqtt is missing")) == (503, True)


def test_presets_beyond_the_limit_are_rejected_and_existing_ones_replaced(console: ConsoleRig) -> None:
    for number in range(MOST_PRESETS):
        save_preset(console.context.store.engine, new_preset({"name": f"set {number}", "enabled": True}, OWNER, 5))
    error = post(console, PRESETS, name="one more", enabled=True)[1]
    assert error.startswith(f"preset: expected at most {MOST_PRESETS}")
    assert post(console, PRESETS, name="set 7", enabled=False) == (200, "saved")
    found = {each["name"]: each["changes"] for each in console.browser().get(PRESETS).json()}
    assert found["set 7"] == {"enabled": False}


def test_the_page_saves_applies_and_removes_a_preset(console: ConsoleRig, commands: FakeCommands) -> None:
    browser, csrf = console.browser(), {"csrf": console.csrf()}
    unset = {"probe_share": "", "profile": "", "enabled": "", "fps": ""}
    assert browser.post("/presets", data=csrf | unset | {"name": "night", "drop_ratio": "0.5"}).status_code == 303
    assert "drop ratio 0.5" in browser.get("/presets").text
    sent = browser.post("/presets/switch", data=csrf | {"cameras": "north/*", "preset": "night"})
    assert sent.headers["location"].endswith("outcome=switched")
    page = browser.get("/presets").text
    assert "2 not sent yet" in page
    assert browser.get(re.findall(r'href="(/camera[^"]+)"', page)[0]).status_code == 200
    browser.post("/presets/remove", data=csrf | {"name": "night"})
    assert "There is no preset" in browser.get("/presets").text


def test_settings_are_described_in_words() -> None:
    fields = {"name": "a", "drop_ratio": 0.5, "probe_share": 0.1, "profile": "raw", "enabled": "true", "fps": 0}
    preset = new_preset(fields, OWNER, 5)
    assert words_of(preset.changes) == "drop ratio 0.5, probe share 0.1, profile raw, on, own rate"
    assert words_of({}) == "own settings"
    assert words_of({"frames_per_second": 1_000.0}) == "1,000 frames/s"
    assert words_of({"frames_per_second": 12.5}) == "12.5 frames/s"
    assert words_of({"frames_per_second": 1 / 60}) == "1 frame/min"
    with pytest.raises(ConfigError):
        new_preset({"name": "a", "profile": None}, OWNER, 5)


@pytest.mark.brokers
async def test_connected_cameras_obey_at_once_and_an_absent_one_after_its_return(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    console = ConsoleRig(tmp_path, changed={"mqtt": f"{mosquitto.host}:{mosquitto.port}"})
    absent = CommandedCamera(mosquitto, tmp_path / "gate", CameraId(GATE), KEYS)
    absent.stop()
    cameras = [CommandedCamera(mosquitto, tmp_path / "door", CameraId(DOOR), KEYS)]
    try:
        for camera in (DOOR, GATE):
            announce(console, camera)
        assert post(console, SWITCHES, cameras="north/*", settings={"drop_ratio": 0.5}) == (200, "switched")
        assert not await switch(console.context)
        await_dropped(cameras[0], 32)
        cameras.append(CommandedCamera(mosquitto, tmp_path / "gate", CameraId(GATE), KEYS))
        await_dropped(cameras[1], 32)
    finally:
        for each in cameras:
            each.close()
        console.close()


def await_dropped(camera: CommandedCamera, dropped: int) -> None:
    wait_until(lambda: camera.last_meta.dropped_per_block == dropped, "the camera to obey")
