"""Signed commands and probe requests at the camera: their order, their range, and their file."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest

from producers.publisher.commands import CameraControl
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.limits import MAX_AHEAD_MS
from schemas.messages.frame import Encoding, sign_message
from schemas.pointillist_pb2 import LOSSLESS, RAW, Command, ProbeRequest
from tests.clocks import MsClock

KEY = derive_camera_key(b"a fleet secret for the tests", CameraId("lab/cam"))


def test_a_command_that_cannot_be_stored_takes_effect_and_is_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    control = CameraControl(tmp_path, KEY, Encoding())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", no_space)
        assert control.command(sign_message(KEY, Command(issued_ms=1, dropped_per_block=32, enabled=False)))
        assert control.persist() == "No space left on device"
    assert (control.encoding.dropped_per_block, control.enabled) == (32, False)
    assert CameraControl(tmp_path, KEY, Encoding()).enabled

    assert control.persist() is None

    again = CameraControl(tmp_path, KEY, Encoding())
    assert (again.encoding.dropped_per_block, again.enabled) == (32, False)


NOW_MS = 1_700_000_000_000
OWN = Encoding(16, 0.05, RAW)


def command(issued_ms: int = NOW_MS, **fields: object) -> bytes:
    return sign_message(KEY, Command(issued_ms=issued_ms, **fields))  # type: ignore[arg-type]  # fields of the message


def request(share: float, issued_ms: int = NOW_MS) -> bytes:
    return sign_message(KEY, ProbeRequest(issued_ms=issued_ms, probe_share=share))


def test_a_command_keeps_the_settings_of_earlier_commands_also_after_a_restart(tmp_path: Path) -> None:
    control = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))
    assert control.command(command(NOW_MS - 2, dropped_per_block=32))
    assert control.command(command(NOW_MS - 1, profile=LOSSLESS))
    for found in (control, CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))):
        assert found.encoding == Encoding(32, 0.05, LOSSLESS)


def test_a_command_overruled_by_a_new_configuration_does_not_return_with_the_former_one(tmp_path: Path) -> None:
    assert CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS)).command(command(dropped_per_block=32, probe_share=0.5))
    changed = CameraControl(tmp_path, KEY, Encoding(20, 0.05, RAW), MsClock(NOW_MS))
    assert changed.encoding == Encoding(20, 0.5, RAW)
    assert changed.persist() is None
    assert CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS)).encoding == Encoding(16, 0.5, RAW)


def test_the_newer_of_a_command_and_a_probe_request_sets_the_share(tmp_path: Path) -> None:
    control = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))
    assert control.probe_request(request(1.0, NOW_MS - 5))
    assert control.command(command(NOW_MS - 4, dropped_per_block=32))
    assert control.encoding == Encoding(32, 1.0, RAW)
    assert control.command(command(NOW_MS - 3, probe_share=0.3))
    assert not control.probe_request(request(1.0, NOW_MS - 3))
    assert control.encoding.probe_share == 0.3
    assert control.probe_request(request(0.5, NOW_MS - 2))
    assert control.encoding == Encoding(32, 0.5, RAW)


def test_a_command_of_the_far_future_waits_for_its_time_and_blocks_no_later_command(tmp_path: Path) -> None:
    clock = MsClock(NOW_MS)
    control = CameraControl(tmp_path, KEY, OWN, clock)
    far = NOW_MS + 10 * MAX_AHEAD_MS
    assert not control.command(command(far, dropped_per_block=0))
    assert not control.probe_request(request(0.0, far))
    assert not control.apply_due()
    assert control.command(command(dropped_per_block=32))
    assert control.probe_request(request(0.5))
    assert control.encoding == Encoding(32, 0.5, RAW)


def test_a_device_without_a_battery_clock_applies_commands_once_its_clock_is_set(tmp_path: Path) -> None:
    clock = MsClock(1000)
    control = CameraControl(tmp_path, KEY, OWN, clock)
    assert not control.command(command(dropped_per_block=32))
    assert not control.probe_request(request(0.5))
    clock.now_ms = NOW_MS + 5
    assert control.apply_due()
    assert control.encoding == Encoding(32, 0.5, RAW)
    assert not control.apply_due()
    # The next start has no clock either, and the command still applies.
    assert CameraControl(tmp_path, KEY, OWN, MsClock(1000)).encoding == Encoding(32, 0.5, RAW)


def test_the_newest_command_applies_once_the_clock_is_set_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    clock = MsClock(1000)
    control = CameraControl(tmp_path, KEY, OWN, clock)
    far = NOW_MS + 10 * MAX_AHEAD_MS
    for issued_ms, dropped in ((far, 0), (NOW_MS - 1, 8), (NOW_MS, 32), (NOW_MS - 2, 16)):
        assert not control.command(command(issued_ms, dropped_per_block=dropped))
    for number in range(100):  # replayed
        assert not control.command(command(NOW_MS - 1000 + number, dropped_per_block=4))
    clock.now_ms = NOW_MS + 5
    assert control.apply_due()
    assert control.encoding.dropped_per_block == 32
    clock.now_ms = far
    assert not control.apply_due()  # a later command has replaced the one of the far future


def test_many_commands_of_the_far_future_do_not_displace_a_later_command(tmp_path: Path) -> None:
    clock = MsClock(1000)
    control = CameraControl(tmp_path, KEY, OWN, clock)
    for number in range(20):
        control.command(command(NOW_MS + 10 * MAX_AHEAD_MS + number, dropped_per_block=0))
    control.command(command(NOW_MS, dropped_per_block=32))
    clock.now_ms = NOW_MS + 5
    assert control.apply_due()
    assert control.encoding.dropped_per_block == 32


def test_a_stored_time_in_the_far_future_does_not_block_new_commands(tmp_path: Path) -> None:
    far_ms = NOW_MS + 10**12
    control = CameraControl(tmp_path, KEY, OWN, MsClock(far_ms))
    assert control.command(command(far_ms, dropped_per_block=0))
    assert control.probe_request(request(0.0, far_ms))
    again = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))
    assert again.command(command(dropped_per_block=32))
    assert again.probe_request(request(0.5))
    assert again.encoding == Encoding(32, 0.5, RAW)
    assert not again.command(command(NOW_MS - 1, dropped_per_block=8))


DAY_MS = 86_400_000


@pytest.mark.parametrize("day", [0.0, 0.5, 1.0, 1.999])
def test_an_applied_command_never_applies_again_whatever_the_clock_shows(tmp_path: Path, day: float) -> None:
    clock = MsClock(NOW_MS)
    control = CameraControl(tmp_path, KEY, OWN, clock)
    former, newer = command(enabled=False), command(NOW_MS + 2 * DAY_MS, enabled=True)
    former_share, newer_share = request(0.0), request(0.5, NOW_MS + 2 * DAY_MS)
    assert control.command(former)
    assert control.probe_request(former_share)
    clock.now_ms = NOW_MS + 2 * DAY_MS
    assert control.command(newer)
    assert control.probe_request(newer_share)

    clock = MsClock(NOW_MS + round(day * DAY_MS))
    again = CameraControl(tmp_path, KEY, OWN, clock)
    for _ in range(2):
        assert not again.command(former)
        assert not again.probe_request(former_share)
        clock.now_ms = NOW_MS + 3 * DAY_MS
        assert not again.apply_due()
        assert not again.command(newer)  # the broker retains it
        assert (again.enabled, again.encoding.probe_share) == (True, 0.5)


def test_none_of_many_applied_commands_applies_again_under_a_clock_that_is_behind(tmp_path: Path) -> None:
    clock = MsClock(NOW_MS)
    control = CameraControl(tmp_path, KEY, OWN, clock)
    days = [*range(12), *range(100, 112)]
    for day in days:
        clock.now_ms = NOW_MS + day * DAY_MS
        assert control.command(command(clock.now_ms, enabled=day % 2 == 0))
    for behind in days:
        again = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS + behind * DAY_MS))
        for day in days:
            assert not again.command(command(NOW_MS + day * DAY_MS, enabled=day % 2 == 0))
    # The clock was ahead by 88 days: commands of the present apply again.
    recovered = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS + 12 * DAY_MS))
    assert recovered.command(command(NOW_MS + 12 * DAY_MS, enabled=True))
    assert recovered.enabled


def test_while_the_last_command_lies_in_the_future_only_fresh_ones_apply_and_it_returns_after_them(
    tmp_path: Path,
) -> None:
    clock = MsClock(NOW_MS + 2 * DAY_MS)
    newest = command(NOW_MS + 2 * DAY_MS, dropped_per_block=32)
    assert CameraControl(tmp_path, KEY, OWN, clock).command(newest)
    clock.now_ms = NOW_MS + DAY_MS
    control = CameraControl(tmp_path, KEY, OWN, clock)
    assert not control.command(command(clock.now_ms - MAX_AHEAD_MS, dropped_per_block=8))
    assert control.command(command(clock.now_ms - MAX_AHEAD_MS + 1, dropped_per_block=16))
    clock.now_ms = NOW_MS + 2 * DAY_MS
    assert control.command(newest)
    assert control.encoding.dropped_per_block == 32


@pytest.mark.parametrize("entry", [None, {}, {"Command": "x"}, {"Command": [[1, 2]], "ProbeRequest": []}])
def test_commands_stored_without_valid_times_of_earlier_ones_stay_in_force(tmp_path: Path, entry: object) -> None:
    control = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))
    assert control.command(command(dropped_per_block=32))
    file = tmp_path / "commands.json"
    before = json.loads(file.read_text())
    if entry is None:
        del before["applied"], before["applied_sum"]
    else:
        before["applied"] = entry
    file.write_text(json.dumps(before))
    again = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))
    assert again.encoding.dropped_per_block == 32
    assert not again.command(command(dropped_per_block=8))
    assert again.command(command(NOW_MS + 1, dropped_per_block=16))
    behind = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS - DAY_MS))
    assert behind.command(command(NOW_MS - DAY_MS, dropped_per_block=24))


def test_a_changed_setting_overrules_an_earlier_command_and_other_commanded_settings_stay(tmp_path: Path) -> None:
    control = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))
    assert control.command(command(dropped_per_block=8, profile=LOSSLESS))
    assert control.probe_request(request(1.0))
    changed = CameraControl(tmp_path, KEY, Encoding(32, 0.05, RAW), MsClock(NOW_MS))
    assert changed.encoding == Encoding(32, 1.0, LOSSLESS)
    assert not changed.command(command(dropped_per_block=8))  # the broker retains it
    rate = CameraControl(tmp_path, KEY, Encoding(16, 0.2, RAW), MsClock(NOW_MS))
    assert rate.encoding == Encoding(8, 0.2, LOSSLESS)


def test_a_reset_revokes_commands_and_probe_requests_permanently(tmp_path: Path) -> None:
    control = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))
    assert control.command(command(NOW_MS - 9, dropped_per_block=8, enabled=False))
    assert control.probe_request(request(1.0, NOW_MS - 8))
    assert control.command(command(NOW_MS - 7, reset=True, profile=LOSSLESS))
    for found in (control, CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))):
        assert (found.encoding, found.enabled) == (Encoding(16, 0.05, LOSSLESS), True)
        assert not found.probe_request(request(1.0, NOW_MS - 8))


def test_a_command_with_an_invalid_value_changes_nothing(tmp_path: Path) -> None:
    control = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))
    assert not control.command(command(dropped_per_block=64, enabled=False))
    assert (control.encoding, control.enabled) == (OWN, True)
    assert control.command(command(NOW_MS - 1, dropped_per_block=32))


def test_a_damaged_file_of_commands_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "commands.json").write_text('{"state": {"issued_ms": "x"}, "own": 3}')
    control = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))
    assert control.encoding == OWN
    assert control.command(command(dropped_per_block=32))


@pytest.mark.parametrize("name", ["commands.json", "commands-copy.json"])
@pytest.mark.parametrize("old", ["{", "true", "16", "false"])
def test_a_paused_camera_stays_paused_if_one_of_the_two_files_is_damaged(tmp_path: Path, name: str, old: str) -> None:
    control = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))
    assert control.command(command(NOW_MS - 5, dropped_per_block=32, enabled=False))
    file = tmp_path / name
    text = file.read_text()
    file.write_text(text.replace(old, "[" if old == "{" else "8", 1) if old in text else "")
    again = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS))
    assert (again.enabled, again.encoding.dropped_per_block) == (False, 32)
    assert again.command(command(NOW_MS - 1, dropped_per_block=16))  # both are whole again
    (tmp_path / "commands.json").write_text("")
    assert not CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS)).enabled


def test_a_commanded_rate_survives_a_restart_until_the_cameras_own_rate_changes_or_is_requested(tmp_path: Path) -> None:
    rates = list[float]()
    control = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS), rate=2.0)
    control.on_rate = lambda: rates.append(control.rate)
    assert control.command(command(NOW_MS - 9, frames_per_second=0.5))
    assert control.command(command(NOW_MS - 8, dropped_per_block=32))
    assert (control.rate, rates) == (0.5, [0.5])
    assert CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS), rate=2.0).rate == 0.5
    changed = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS), rate=4.0)
    assert (changed.rate, changed.encoding.dropped_per_block) == (4.0, 32)
    assert control.command(command(NOW_MS - 7, frames_per_second=0.0))
    assert (control.rate, rates) == (2.0, [0.5, 2.0])
    assert not control.state.HasField("frames_per_second")
    assert control.command(command(NOW_MS - 6, frames_per_second=9.0))
    assert control.command(command(NOW_MS - 5, reset=True))
    assert CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS), rate=2.0).rate == 2.0


@pytest.mark.parametrize("rate", [math.nan, math.inf, -1.0, 1000.1, 1 / 3601])
def test_a_command_with_an_invalid_rate_changes_no_other_setting(tmp_path: Path, rate: float) -> None:
    control = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS), rate=2.0)
    assert not control.command(command(NOW_MS - 2, frames_per_second=rate, dropped_per_block=32))
    assert (control.rate, control.encoding) == (2.0, OWN)
    assert control.command(command(NOW_MS - 1, frames_per_second=1000.0))


def test_commands_stored_by_a_version_without_rates_stay_in_force(tmp_path: Path) -> None:
    control = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS), rate=2.0)
    assert control.command(command(dropped_per_block=32))
    file = tmp_path / "commands.json"
    before = json.loads(file.read_text())
    del before["own"]["frames_per_second"], before["sum"]
    file.write_text(json.dumps(before))
    (tmp_path / "commands-copy.json").unlink()
    again = CameraControl(tmp_path, KEY, OWN, MsClock(NOW_MS), rate=2.0)
    assert (again.rate, again.encoding.dropped_per_block) == (2.0, 32)
