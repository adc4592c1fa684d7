"""Cameras under a drop policy: at a real broker, when they disobey, and after its removal; its page and API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial, partialmethod
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from consumers.cameras.camera import Camera
from consumers.console.api.routes import ROOT
from consumers.console.background.drop_steering import MOST_A_ROUND, steer
from consumers.console.data import drop_policies
from consumers.console.data import store as console_store
from consumers.console.data.backlogs import LEAST_WAITING
from consumers.console.data.commands import Commands
from consumers.console.data.drop_plan import LEAST_ATTACKED, MOST_TRIES
from consumers.database.console_store import AuditLog
from consumers.database.tables import ledgers
from consumers.records.rows import CameraRow
from infra.local.mosquitto import Mosquitto
from schemas.camera_groups import most_specific
from schemas.clock import monotonic_ms
from schemas.errors import BrokerError
from schemas.identity import CameraId
from schemas.messages.frame import Truth
from schemas.pointillist_pb2 import OFFLINE, ONLINE, Meta
from tests.commanded_camera import CommandedCamera
from tests.consumers.console_rig import ConsoleRig, poll
from tests.consumers.recorder_rig import CAMERA, KEYS, Rig, ledger, signed, verdict
from tests.consumers.test_drop_policy import POLICY
from tests.waiting import PATIENCE_S

POLICIES = f"{ROOT}/drop-policies"
SENT = {"cameras": "lab/*", "lowest": 0.25, "highest": 0.5, "evidence": 0.5, "accuracy": 0.6}
WAIT_MS, CALM_MS = 120_000, 600_000
PATIENT: dict[str, Any] = {"silent_after_s": 600.0}
"""Settings of a console for which no camera becomes silent during a test."""


class FakeCommands:
    """A stand-in for commands: cameras that obey or disobey, or an unreachable broker."""

    def __init__(self, obeys: bool = True) -> None:
        self.obeys, self.away = obeys, False
        self.sent: list[tuple[str, int]] = []

    def send(self, camera: str, changes: dict[str, int]) -> str:
        if self.away:
            raise BrokerError("expected an MQTT broker at 127.0.0.1:1")
        self.sent.append((camera, changes["dropped_per_block"]))
        return "confirmed" if self.obeys else "sent"


def announce(
    console: ConsoleRig, dropped: int, camera: str = CAMERA, state: int = ONLINE, frames_per_second: float = 2.0
) -> None:
    """Receive a camera's meta: it drops this many pixels of each block."""
    now_ms = time.time_ns() // 10**6
    meta = Meta(boot_id=1, dropped_per_block=dropped, frames_per_second=frames_per_second).SerializeToString()
    console.context.fleet.record_status(CameraRow(camera, state, now_ms, "", b"", meta, now_ms), 0, monotonic_ms())
    console.tick()


def save_evidence(console: ConsoleRig, level: float, camera: str = CAMERA) -> None:
    """Receive a camera's evidence from the recorder's snapshot."""
    fleet = console.context.fleet
    shown = fleet.camera(camera)
    assert shown is not None
    fleet.merge_saved(Camera(camera, last=shown.last, frames=1, level=level, is_new=False), 0, monotonic_ms())
    console.tick()


@pytest.fixture
def commands(console: ConsoleRig) -> FakeCommands:
    """Return commands, which the one announced camera obeys."""
    commands = FakeCommands()
    console.context.commands = commands  # type: ignore[assignment]  # the one method that steering calls
    console.show([verdict(0)])
    announce(console, 16)
    return commands


def save_policy(console: ConsoleRig, **changed: object) -> None:
    answer = console.browser().post(POLICIES, json=SENT | changed)
    assert (answer.status_code, answer.json()) == (200, {"outcome": "saved"})


async def rounds(
    console: ConsoleRig, commands: FakeCommands, *times_ms: int, obey: bool = True
) -> list[tuple[str, int]]:
    """Steer at these times. Return the commands."""
    commands.sent.clear()
    for now_ms in times_ms:
        before = len(commands.sent)
        await steer(console.context, now_ms)
        for camera, dropped in commands.sent[before:] if obey else ():
            announce(console, dropped, camera)
    return list(commands.sent)


@pytest.fixture
def console(tmp_path: Path, recorder: Rig) -> Iterator[ConsoleRig]:
    """Yield a patient console that reads the database of `recorder`."""
    rig = ConsoleRig(tmp_path, changed=PATIENT)
    yield rig
    rig.close()


@pytest.fixture
def camera(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[CommandedCamera]:
    camera = CommandedCamera(mosquitto, tmp_path / "camera", CameraId(CAMERA), KEYS)
    try:
        yield camera
    finally:
        camera.close()


@pytest.mark.brokers
async def test_a_camera_at_a_real_broker_raises_its_ratio_on_evidence_and_lowers_it_later(
    mosquitto: Mosquitto, camera: CommandedCamera, tmp_path: Path, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = ConsoleRig(tmp_path, changed={"mqtt": f"{mosquitto.host}:{mosquitto.port}", **PATIENT})
    monkeypatch.setattr(Commands, "send", partialmethod(Commands.send, wait_s=PATIENCE_S))
    try:
        recorder.verdicts([verdict(0)])
        console.show([verdict(0)])
        camera.describe()

        async def round_at(now_ms: int, level: float = 0.0) -> int:
            """Store what the camera announces, and steer it. Return its dropped pixels per block."""
            topic = recorder.settings.events_topic
            recorder.feed([recorder.record(topic, CAMERA.encode(), signed(camera.last_meta), "Meta")])
            poll(console)
            save_evidence(console, level)
            await steer(console.context, now_ms)
            return camera.control.encoding.dropped_per_block

        save_policy(console)
        assert await round_at(0) == 16
        assert await round_at(1_000, level=0.8) == 32
        assert camera.control.encoding.probe_share == 0.05
        assert [await round_at(at_ms) for at_ms in (2_000, 601_000, 602_000, 1_202_000)] == [32, 32, 28, 24]
        assert [await round_at(at_ms) for at_ms in (1_802_000, 2_402_000, 9_000_000)] == [20, 16, 16]
        log = [
            (each.who, each.what, each.detail, each.outcome) for each in console.context.store.newest_operations(CAMERA)
        ]
        assert log[-1] == (
            "policy lab/*",
            "drop policy",
            "drop ratio 0.25 to 0.5: evidence of a trigger 0.80, from 0.5 on",
            "confirmed",
        )
        assert log[0][2] == "drop ratio 0.312 to 0.25: calm for 600 s"
        history = console.browser().get(f"{ROOT}/cameras/{CAMERA}/history").json()
        assert [words for _, words in history["commands"]][-1] == " ".join(log[-1][1:3])
    finally:
        console.close()


async def test_waiting_frames_and_shed_frames_raise_the_ratio_by_a_step(
    console: ConsoleRig, commands: FakeCommands, recorder: Rig
) -> None:
    save_policy(console)
    recorder.ledger(ledger(1, 59))
    assert await rounds(console, commands, 0) == []  # 29.5 s at 2 frames a second
    recorder.ledger(ledger(2, 60))
    assert await rounds(console, commands, 1_000, 2_000) == [(CAMERA, 20)]
    assert console.context.drop_plan.counts()["lab/*"] == (1, 1, 0)
    confirmed = ledger(3, 61)
    confirmed.confirmed_to = 61
    recorder.ledger(confirmed)
    assert await rounds(console, commands, 2_000 + WAIT_MS) == []
    shed = ledger(4, 62, [(61, 61)])
    shed.confirmed_to = 62
    recorder.ledger(shed)
    assert await rounds(console, commands, 3_000 + WAIT_MS) == [(CAMERA, 24)]
    assert (
        console.context.store.newest_operations(CAMERA)[0].detail
        == "drop ratio 0.312 to 0.375: 1 frames shed by the full spool"
    )
    assert await rounds(console, commands, 4_000 + 2 * WAIT_MS) == []


async def test_waiting_frames_are_counted_after_the_clock_was_set_back(
    console: ConsoleRig, commands: FakeCommands, recorder: Rig
) -> None:
    save_policy(console)
    recorder.ledger(ledger(1, 59))
    with recorder.engine.begin() as connection:
        connection.execute(ledgers.update().values(taken_ms=ledgers.c.taken_ms + 3_600_000))
    assert await rounds(console, commands, 0) == []
    recorder.ledger(ledger(2, 60))
    assert await rounds(console, commands, 1_000) == [(CAMERA, 20)]


async def test_a_few_frames_in_flight_of_a_slow_camera_do_not_raise_the_ratio(
    console: ConsoleRig, commands: FakeCommands, recorder: Rig
) -> None:
    announce(console, 16, frames_per_second=1 / 60)
    save_policy(console)
    recorder.ledger(ledger(1, LEAST_WAITING))
    assert await rounds(console, commands, 0) == []
    recorder.ledger(ledger(2, LEAST_WAITING + 1))
    assert await rounds(console, commands, 1_000) == [(CAMERA, 20)]


async def test_misclassified_attacked_frames_raise_all_cameras_of_their_group(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    for name in ("lab/gate", "yard/gate"):
        console.show([verdict(0)], name)
        announce(console, 16, name)
    save_policy(console)
    save_policy(console, cameras="yard/*")
    wrong = Truth(4, attacked=True).to_wire()
    console.show([verdict(seq, truth=wrong) for seq in range(1, LEAST_ATTACKED)])
    assert await rounds(console, commands, monotonic_ms()) == []
    console.show([verdict(LEAST_ATTACKED, truth=wrong)])
    assert sorted(await rounds(console, commands, monotonic_ms())) == [(CAMERA, 32), ("lab/gate", 32)]


async def test_a_disobeying_camera_gets_a_bounded_number_of_commands(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    commands.obeys = False
    save_policy(console)
    save_evidence(console, 1.0)
    times = range(0, 2 * 3_600_000, 60_000)
    assert await rounds(console, commands, *times, obey=False) == [(CAMERA, 32)] * MOST_TRIES
    tries = [each.detail.partition("0.5 on")[2] for each in console.context.store.newest_operations(CAMERA)]
    assert tries == [*(f", try {number} of {MOST_TRIES}" for number in range(MOST_TRIES, 1, -1)), ""]
    assert "the camera has not applied 50.0 % yet" in console.browser().get(f"/camera/{CAMERA}").text
    announce(console, 32)
    assert await rounds(console, commands, 2 * 3_600_000) == []
    announce(console, 8)  # another program has commanded the camera
    assert await rounds(console, commands, 3 * 3_600_000, obey=False) == [(CAMERA, 32)]


async def test_a_camera_outside_the_bounds_is_moved_into_them(console: ConsoleRig, commands: FakeCommands) -> None:
    announce(console, 0)
    save_policy(console)
    assert await rounds(console, commands, 0) == [(CAMERA, 16)]
    save_policy(console, lowest=0.375)
    assert await rounds(console, commands, 1_000) == [(CAMERA, 24)]


async def test_a_changed_policy_decides_at_once_and_its_removal_returns_to_the_new_lowest_ratio(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    save_policy(console)
    save_evidence(console, 1.0)
    assert await rounds(console, commands, 0) == [(CAMERA, 32)]
    save_policy(console, lowest=0.375, highest=0.75)
    assert await rounds(console, commands, 1_000) == [(CAMERA, 48)]
    console.browser().post(f"{POLICIES}/remove", json={"cameras": "lab/*"})
    assert await rounds(console, commands, 2_000) == [(CAMERA, 24)]


async def test_an_offline_camera_gets_no_command(console: ConsoleRig, commands: FakeCommands) -> None:
    save_policy(console)
    save_evidence(console, 1.0)
    announce(console, 16, state=OFFLINE)
    assert await rounds(console, commands, 0) == []
    announce(console, 16)
    assert await rounds(console, commands, 1) == [(CAMERA, 32)]


async def test_commands_that_the_broker_rejects_are_retried_in_the_next_round(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    save_policy(console)
    save_evidence(console, 1.0)
    commands.away = True
    assert await rounds(console, commands, 0, 5_000) == []
    assert console.context.store.newest_operations(CAMERA) == []
    commands.away = False
    assert await rounds(console, commands, 10_000, 15_000) == [(CAMERA, 32)]


async def test_the_cameras_of_a_removed_policy_return_to_its_lowest_ratio(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    names = [f"lab/cam-{number}" for number in range(MOST_A_ROUND + 3)]
    for name in names:
        console.show([verdict(0)], name)
        announce(console, 16, name)
        save_evidence(console, 1.0, name)
    save_policy(console)
    assert sorted(await rounds(console, commands, 0, 5_000)) == sorted((name, 32) for name in names)
    answer = console.browser().post(f"{POLICIES}/remove", json={"cameras": "lab/*"})
    assert answer.json() == {"outcome": "removed"}
    commands.away = True
    assert await rounds(console, commands, 10_000) == []
    commands.away = False
    assert sorted(await rounds(console, commands, 15_000, 20_000, 25_000)) == sorted((name, 16) for name in names)
    assert console.context.drop_plan.is_idle
    again = console.browser().post(f"{POLICIES}/remove", json={"cameras": "lab/*"})
    assert again.status_code == 400


async def test_a_restarted_console_keeps_the_ratio_of_a_camera_until_it_is_calm(
    console: ConsoleRig, commands: FakeCommands, tmp_path: Path
) -> None:
    save_policy(console)
    save_evidence(console, 1.0)
    assert await rounds(console, commands, 0) == [(CAMERA, 32)]
    other = ConsoleRig(tmp_path, changed={"owner_file": tmp_path / "other.token", **PATIENT})
    try:
        assert [each.cameras for each in other.context.drop_plan.policies] == ["lab/*"]
        sent = FakeCommands()
        other.context.commands = sent  # type: ignore[assignment]
        other.show([verdict(0)])
        announce(other, 32)
        assert await rounds(other, sent, 0, CALM_MS - 1, CALM_MS) == [(CAMERA, 28)]
    finally:
        other.close()


def test_the_command_of_a_steered_drop_ratio_is_rejected(console: ConsoleRig, commands: FakeCommands) -> None:
    save_policy(console)
    browser, path = console.browser(), f"{ROOT}/cameras/{CAMERA}/command"
    rejected = browser.post(path, json={"drop_ratio": 0.4})
    assert rejected.status_code == 400
    assert "policy lab/* steers it" in rejected.json()["error"]
    assert commands.sent == []
    assert 'name="drop_ratio"' not in browser.get(f"/camera/{CAMERA}").text


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"cameras": "lab"}, "cameras: expected site/camera, or site/* or site/beginning*, got 'lab'"),
        ({"cameras": "*/*"}, "cameras: expected site/camera"),
        ({"cameras": "lab/*x"}, "cameras: expected site/camera"),
        ({"lowest": None}, "lowest: expected 0 to 0.875, got 'None'"),
        ({"highest": 0.876}, "highest: expected 0 to 0.875, got '0.876'"),
        ({"highest": 0.251}, "highest: expected more than lowest, got 0.251 and 0.25"),
        ({"evidence": float("nan")}, "evidence: expected 0.05 to 1, got 'nan'"),
        ({"least_s": 1}, "least_s: expected 30 to 86400, got '1'"),
        ({"evidence": None, "accuracy": None, "waiting_s": None}, "policy: expected at least one of evidence"),
    ],
)
def test_an_invalid_policy_is_rejected_in_one_line(
    console: ConsoleRig, changed: dict[str, object], complaint: str
) -> None:
    outcome = console.browser().post("/drop-policies", data={"csrf": console.csrf()} | _form(SENT | changed))
    assert outcome.status_code == 303
    assert console.context.drop_plan.policies == []
    page = console.browser().get(outcome.headers["location"])
    assert complaint.replace("'", "&#39;") in page.text


def _form(fields: dict[str, object]) -> dict[str, str]:
    return {name: "" if value is None and name != "lowest" else str(value) for name, value in fields.items()}


def test_the_page_shows_policies_and_removes_them(console: ConsoleRig, commands: FakeCommands) -> None:
    browser = console.browser()
    sent = {name: str(value) for name, value in SENT.items()} | {"accuracy": "", "calm_s": "900"}
    assert browser.post("/drop-policies", data={"csrf": console.csrf()} | sent).status_code == 303
    [policy] = console.context.drop_plan.policies
    assert (policy.accuracy, policy.calm_s, policy.least_s) == (None, 900.0, 120.0)
    assert "25.0 % to 50.0 %" in browser.get("/drop-policies").text
    [line] = console.context.store.newest_operations("lab/*")
    assert (line.site, line.outcome) == ("lab", "saved")
    assert "accuracy off" in line.detail
    browser.post("/drop-policies/remove", data={"csrf": console.csrf(), "cameras": "lab/*"})
    assert "There is no policy" in browser.get("/drop-policies").text


def test_the_policies_of_a_site_leave_room_for_another_site(
    console: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop_policies, "MOST_POLICIES", 1)
    for cameras in ("north/*", "south/*", "south/*"):
        save_policy(console, cameras=cameras)
    answer = console.browser().post(POLICIES, json=SENT | {"cameras": "north/door"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("policy: expected at most 1 at a site, got more")


def test_the_most_specific_group_steers_a_camera() -> None:
    groups = ("lab/*", "lab/gate-*", "lab/gate-1", "lab/gate-1*", "yard/*")
    found = {each: POLICY._replace(cameras=each) for each in groups}
    for camera, expected in (
        ("lab/door", "lab/*"), ("lab/gate-2", "lab/gate-*"), ("lab/gate-1", "lab/gate-1"),
        ("lab/gate-12", "lab/gate-1*"), ("yard/gate", "yard/*"), ("north/gate", None),
    ):  # fmt: skip
        policy = most_specific(camera, found)
        assert (policy.cameras if policy is not None else None) == expected


def test_log_lines_of_policies_evict_no_line_of_a_user_from_the_audit_log(
    console: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_store, "MOST_OPERATIONS", 3)
    monkeypatch.setattr(console_store, "unix_ms", partial(next, count()))
    store = console.context.store
    store.note("anna", "command", CAMERA, "", "confirmed")
    for number in range(5):
        store.note("policy lab/*", "drop policy", CAMERA, str(number), "confirmed", log=AuditLog.POLICIES)
    assert [each.detail for each in store.newest_operations(CAMERA)] == ["4", "3", "2", ""]
    assert [each.detail for each in store.newest_operations(limit=2)] == ["4", ""]


async def test_the_calm_time_of_a_camera_that_was_offline_begins_with_its_return(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    save_policy(console)
    save_evidence(console, 1.0)
    assert await rounds(console, commands, 0) == [(CAMERA, 32)]
    save_evidence(console, 0.0)
    assert await rounds(console, commands, 200_000) == []
    announce(console, 32, state=OFFLINE)
    assert await rounds(console, commands, 3_000_000) == []
    announce(console, 32)
    assert await rounds(console, commands, 3_600_000) == []
    assert await rounds(console, commands, 3_600_000 + 1_000 * int(POLICY.calm_s)) == [(CAMERA, 28)]


async def test_a_policy_set_again_before_all_cameras_have_returned_raises_none(
    console: ConsoleRig, commands: FakeCommands
) -> None:
    save_policy(console)
    save_evidence(console, 1.0)
    assert await rounds(console, commands, 0) == [(CAMERA, 32)]
    save_evidence(console, 0.0)
    announce(console, 20)
    console.browser().post(f"{POLICIES}/remove", json={"cameras": "lab/*"})
    commands.away = True
    assert await rounds(console, commands, 10_000) == []
    commands.away = False
    save_policy(console)
    assert await rounds(console, commands, 15_000) == []


async def test_a_command_that_cannot_be_logged_counts_and_stops_no_other(
    console: ConsoleRig, commands: FakeCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["lab/cam-1", "lab/cam-2", "lab/cam-3"]
    for name in names:
        console.show([verdict(0)], name)
        announce(console, 16, name)
        save_evidence(console, 1.0, name)
    save_policy(console)

    def note(*_line: object, **_options: object) -> None:
        raise OperationalError("insert", {}, Exception("the database is locked"))

    monkeypatch.setattr(console.context.store, "note", note)
    with capture_logs() as logs:
        assert sorted(await rounds(console, commands, 0, 1_000)) == [(name, 32) for name in names]
    assert [(each["event"], each["cameras"]) for each in logs] == [("drop_ratios_not_logged", 3)]
