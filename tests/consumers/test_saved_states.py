"""Saved states of cameras: the recorder judges and saves them, and every program shows the same state and reason."""

from __future__ import annotations

import json
import time

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from structlog.testing import capture_logs

from consumers.cameras.cache import CameraCache
from consumers.cameras.saved import CameraStates, SavedState, read_states
from consumers.cameras.snapshots import Snapshots
from consumers.cameras.state import State, StateWithReason
from consumers.console.data.fleet import Fleet
from consumers.console.database_poller import DatabasePoller
from consumers.database.recorded import RecorderDatabase
from consumers.database.tables import boots, camera_snapshots, camera_states, cameras
from consumers.homeassistant.reading import DatabaseReader
from consumers.records.rows import FrameRow
from schemas.clock import monotonic_ms
from schemas.errors import BrokerError, StateError
from schemas.pointillist_pb2 import ENDED, ONLINE, PAUSED, Meta, Refusal, Status, Turn
from schemas.runtime.health import Health
from tests.clocks import MsClock
from tests.consumers.console_rig import jpeg_scene
from tests.consumers.recorder_rig import BOOT, CAMERA, Rig, signed, verdict

TOO_LARGE = "frame size: expected at most 64 pixels, got 32x24. Set the camera's size to 8x8 or smaller."


def feed_event(rig: Rig, message: Status | Meta | Refusal) -> None:
    kind = type(message).__name__
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), signed(message), kind)])


def housekeeping(rig: Rig, clock_ms: int | None = None) -> None:
    """Run one tick of a recorder's housekeeping."""
    seen = rig.cameras.pop_previews(100)
    for camera, jpeg in seen:
        camera.health.update(jpeg, monotonic_ms())
    rig.cameras.mark_unjudged(camera for camera, _ in seen)
    now_ms = time.time_ns() // 10**6
    changed = rig.cameras.judge(monotonic_ms() if clock_ms is None else clock_ms, now_ms)
    CameraStates(rig.engine, 1_000).save(changed)
    cameras, left_from_ms = rig.cameras.unsaved(1_000)
    Snapshots(rig.engine, 0).save(cameras, left_from_ms)


def states_of_programs(rig: Rig) -> list[tuple[str, str]]:
    """Return state and reason as shown by Home Assistant and by the console.

    A test with `up` checks the command line.
    """
    recorded = RecorderDatabase(rig.url)
    [device] = DatabaseReader(recorded).poll()
    fleet = Fleet(rig.settings)
    poller = DatabasePoller(recorded, fleet, {}, Health())
    poller.apply(poller.poll())
    poller.close()
    fleet.tick(monotonic_ms())
    card = fleet.card(CAMERA)
    assert card is not None
    recorded.close()
    return [(device.state, device.detail), (card.state.value, card.detail)]


def test_every_program_shows_a_black_picture_as_black(recorder: Rig) -> None:
    recorder.verdicts([verdict(0, preview=jpeg_scene(dark=True))])
    housekeeping(recorder)
    assert [state for state, _ in states_of_programs(recorder)] == ["black", "black"]
    recorder.verdicts([verdict(1, preview=jpeg_scene())])
    housekeeping(recorder)
    assert states_of_programs(recorder) == [("online", ""), ("online", "")]


def test_every_program_shows_a_camera_without_changing_pixels_as_frozen(recorder: Rig) -> None:
    clock = MsClock(1_000_000)
    recorder.cameras = CameraCache(recorder.settings, clock)
    for seq in range(22):
        recorder.verdicts([verdict(seq, changed=0.0)])
        clock.now_ms += 1_000
    housekeeping(recorder, clock())
    states = states_of_programs(recorder)
    assert {state for state, _ in states} == {"frozen"}
    assert all("do not change" in reason for _, reason in states)


def test_a_blurred_camera_stays_blurred_after_a_restart_until_a_picture_is_sharp(recorder: Rig) -> None:
    for seq in range(40):
        recorder.verdicts([verdict(seq, preview=jpeg_scene(seq))])
        housekeeping(recorder)
    recorder.verdicts([verdict(40, preview=jpeg_scene(1, blur=3))])
    housekeeping(recorder)
    assert saved_state(recorder).judged.state is State.BLURRED
    restored = Snapshots(recorder.engine, 0).load()
    for camera in restored:
        camera.judged = saved_state(recorder).judged
    recorder.cameras = CameraCache(recorder.settings)
    recorder.cameras.restore(restored)
    for seq, blur, expected in ((41, 3.0, State.BLURRED), (42, 3.0, State.BLURRED), (43, 0.0, State.ONLINE)):
        recorder.verdicts([verdict(seq, preview=jpeg_scene(seq, blur=blur))])
        housekeeping(recorder)
        assert saved_state(recorder).judged.state is expected


@pytest.mark.parametrize(("reported", "expected"), [(PAUSED, "paused"), (ENDED, "ended")])
def test_a_paused_or_ended_camera_is_not_silent(recorder: Rig, reported: int, expected: str) -> None:
    clock = MsClock(1_000_000)
    recorder.cameras = CameraCache(recorder.settings, clock)
    recorder.verdicts([verdict(0)])
    feed_event(recorder, Status(state=reported, boot_id=BOOT, detail="on purpose"))  # type: ignore[arg-type]  # an enum's number
    clock.now_ms += 600_000
    housekeeping(recorder, clock())
    assert states_of_programs(recorder) == [(expected, "on purpose")] * 2
    assert recorder.cameras.worst(10) == []


def test_a_revoked_camera_is_revoked_until_it_enrols_again(recorder: Rig) -> None:
    meta = Meta(boot_id=BOOT, frames_per_second=2)
    feed_event(recorder, meta)
    recorder.verdicts([verdict(0)])
    recorder.cameras.revoke({CAMERA: 1})
    housekeeping(recorder)
    assert {state for state, _ in states_of_programs(recorder)} == {"revoked"}
    recorder.cameras.revoke({CAMERA: 0})
    housekeeping(recorder)
    assert {state for state, _ in states_of_programs(recorder)} == {"online"}


def test_a_camera_with_rejected_frames_is_refused_with_the_remedy_until_they_stop(recorder: Rig) -> None:
    clock = MsClock(1_000_000)
    recorder.cameras = CameraCache(recorder.settings, clock)
    feed_event(recorder, Status(state=ONLINE, boot_id=BOOT))
    feed_event(recorder, Refusal(boot_id=BOOT, seq=1, reason="over_size", detail=TOO_LARGE))
    housekeeping(recorder, clock())
    with recorder.engine.begin() as connection:
        [saved] = read_states(connection)
    assert (saved.judged.state, saved.judged.reason) == (State.REFUSED, TOO_LARGE)
    assert recorder.cameras.worst(10) == [(CAMERA, State.REFUSED)]
    clock.now_ms += 11_000
    housekeeping(recorder, clock())
    with recorder.engine.begin() as connection:
        [saved] = read_states(connection)
    assert saved.judged.state is State.SILENT


def test_an_unsigned_refusal_becomes_a_dead_letter(recorder: Rig) -> None:
    forged = Refusal(boot_id=BOOT, detail="made up").SerializeToString()
    written = recorder.feed([recorder.record(recorder.settings.events_topic, CAMERA.encode(), forged, "Refusal")])
    assert [letter.reason for letter in written.letters] == ["bad_tag"]
    assert written.refusals == []


def test_a_state_is_saved_with_its_time_when_it_changes(recorder: Rig) -> None:
    recorder.verdicts([verdict(0)])
    now_ms = monotonic_ms()
    [(saved, _)] = recorder.cameras.judge(now_ms, 5)
    assert (saved.judged.state, saved.since_ms) == (State.ONLINE, 5)
    recorder.verdicts([verdict(1)])
    assert recorder.cameras.judge(now_ms, 6) == []
    [(saved, _)] = recorder.cameras.judge(now_ms + 60_000, 7)
    assert (saved.judged.state, saved.since_ms) == (State.SILENT, 7)


def test_a_recorder_that_has_lost_a_camera_does_not_save_it_as_silent(recorder: Rig) -> None:
    clock = MsClock(1_000_000)
    other = CameraCache(recorder.settings, clock)
    other.apply_transaction(recorder.verdicts([verdict(0)]))
    states = CameraStates(recorder.engine, 1_000)
    states.save(other.judge(clock(), 1))
    time.sleep(0.002)
    recorder.verdicts([verdict(1)])
    clock.now_ms += 60_000
    [(silent, _)] = changed = other.judge(clock(), 2)
    assert silent.judged.state is State.SILENT
    states.save(changed)
    with recorder.engine.begin() as connection:
        assert [each.judged.state for each in read_states(connection)] == [State.ONLINE]


def saved_state(rig: Rig) -> SavedState:
    with rig.engine.begin() as connection:
        [saved] = read_states(connection)
    return saved


def test_a_camera_with_a_lower_rate_becomes_silent_later_for_other_programs(recorder: Rig) -> None:
    clock = MsClock(1_000_000)
    recorder.cameras = CameraCache(recorder.settings, clock)
    for number, (fps, patience_s) in enumerate(((10, 10.0), (0.02, 125.0), (10, 10.0)), 1):
        turn = Turn(connection=1, message=number, at_ms=number)
        feed_event(recorder, Meta(boot_id=BOOT, frames_per_second=fps, turn=turn))
        recorder.verdicts([verdict(number)])
        housekeeping(recorder, clock())
        saved = saved_state(recorder)
        assert (saved.judged.state, saved.patience_s) == (State.ONLINE, patience_s)
        assert saved.now(0, 40_000).state is (State.ONLINE if patience_s > 40 else State.SILENT)


def test_a_camera_whose_snapshot_is_saved_late_is_not_silent_in_home_assistant(recorder: Rig) -> None:
    recorder.verdicts([verdict(0)])
    housekeeping(recorder)
    late_ms = 60_000
    with recorder.engine.begin() as connection:
        count, last, *rest = json.loads(connection.scalar(select(camera_snapshots.c.state)) or "")
        row = FrameRow(*last)
        state = json.dumps([count, row._replace(recorded_ms=row.recorded_ms - late_ms), *rest])
        connection.execute(camera_snapshots.update().values(state=state))
    recorded = RecorderDatabase(recorder.url)
    reading = DatabaseReader(recorded)
    assert [each.state for each in reading.poll()] == ["online"]
    with recorder.engine.begin() as connection:
        connection.execute(boots.update().values(last_ms=boots.c.last_ms - late_ms))
    assert [each.state for each in DatabaseReader(recorded).poll()] == ["silent"]
    recorded.close()


@pytest.mark.parametrize("repeated", [False, True])
def test_a_restarted_recorder_saves_a_silent_camera(recorder: Rig, repeated: bool) -> None:
    recorder.verdicts([verdict(0)])
    housekeeping(recorder)
    time.sleep(0.002)
    recorder.verdicts([verdict(0)])  # a duplicate with a later recording time
    clock = MsClock(1_000_000)
    cameras = Snapshots(recorder.engine, 0).load()
    recorder.cameras = CameraCache(recorder.settings, clock)
    recorder.cameras.restore(cameras)
    if repeated:
        time.sleep(0.002)
        recorder.verdicts([verdict(0)])
    clock.now_ms += 60_000
    housekeeping(recorder, clock())
    assert saved_state(recorder).judged.state is State.SILENT


def test_a_silent_camera_is_saved_although_an_earlier_boot_was_recorded_by_a_clock_that_was_ahead(
    recorder: Rig,
) -> None:
    clock = MsClock(1_000_000)
    recorder.cameras = CameraCache(recorder.settings, clock)
    recorder.verdicts([verdict(0, boot=BOOT + 1)])
    with recorder.engine.begin() as connection:
        connection.execute(boots.update().values(last_ms=boots.c.last_ms + 3_600_000))
    recorder.verdicts([verdict(0)])
    clock.now_ms += 60_000
    housekeeping(recorder, clock())
    assert saved_state(recorder).judged.state is State.SILENT


def test_a_console_reads_the_rows_of_a_slow_transaction(recorder: Rig) -> None:
    recorder.verdicts([verdict(0)])
    feed_event(recorder, Status(state=ONLINE, boot_id=BOOT))
    housekeeping(recorder)
    recorded = RecorderDatabase(recorder.url)
    poller = DatabasePoller(recorded, Fleet(recorder.settings), {}, Health())
    assert [state.camera for state in poller.poll().states] == [CAMERA]
    at_ms = time.time_ns() // 10**6
    for late_ms, seen in ((10_000, [CAMERA]), (60_000, [])):
        with recorder.engine.begin() as connection:
            connection.execute(camera_states.update().values(saved_ms=at_ms - late_ms))
            connection.execute(cameras.update().values(seen_ms=at_ms - late_ms))
            connection.execute(camera_snapshots.update().values(heard_ms=at_ms - late_ms))
        found = poller.poll()
        assert [state.camera for state in found.states] == seen
        assert ([row.camera for row in found.statuses], [each.name for each in found.saved]) == (seen, seen)
    poller.close()
    recorded.close()


def test_a_console_applies_each_row_once(recorder: Rig) -> None:
    recorder.verdicts([verdict(0)])
    feed_event(recorder, Status(state=ONLINE, boot_id=BOOT))
    housekeeping(recorder)
    recorded, fleet = RecorderDatabase(recorder.url), Fleet(recorder.settings)
    poller = DatabasePoller(recorded, fleet, {}, Health())
    poller.apply(poller.poll())
    # The console has read further frames, which the recorder has not saved yet.
    fleet.add_frames(recorder.verdicts([verdict(1)]).rows, {}, {}, monotonic_ms())
    again = poller.poll()
    assert (again.saved, again.statuses) == ([], [])
    poller.apply(again)
    shown = fleet.camera(CAMERA)
    assert shown is not None
    assert shown.frames == 2
    housekeeping(recorder)
    assert [each.frames for each in poller.poll().saved] == [2]
    poller.close()
    recorded.close()


def test_a_console_reads_rows_that_are_written_after_the_clock_was_set_back(recorder: Rig) -> None:
    recorder.verdicts([verdict(0)])
    feed_event(recorder, Status(state=ONLINE, boot_id=BOOT))
    housekeeping(recorder)
    ahead_ms = 3_600_000
    with recorder.engine.begin() as connection:
        connection.execute(cameras.update().values(seen_ms=cameras.c.seen_ms + ahead_ms))
        connection.execute(camera_snapshots.update().values(heard_ms=camera_snapshots.c.heard_ms + ahead_ms))
    recorded = RecorderDatabase(recorder.url)
    poller = DatabasePoller(recorded, Fleet(recorder.settings), {}, Health())
    poller.poll()
    with recorder.engine.begin() as connection:
        connection.execute(cameras.update().values(seen_ms=cameras.c.seen_ms - ahead_ms))
        connection.execute(camera_snapshots.update().values(heard_ms=camera_snapshots.c.heard_ms - ahead_ms))
    seen = poller.poll()
    assert ([row.camera for row in seen.statuses], [each.name for each in seen.saved]) == ([CAMERA], [CAMERA])
    poller.close()
    recorded.close()


def test_a_permanent_error_of_the_database_is_logged(recorder: Rig) -> None:
    recorded = RecorderDatabase(recorder.url)
    for error, raised, lines in ((OperationalError, BrokerError, 0), (ProgrammingError, StateError, 1)):

        def fail(_: Connection, error: type[DBAPIError] = error) -> None:
            raise error("select", {}, ValueError("no value for a parameter"))

        with capture_logs() as logged, pytest.raises(raised, match="the recorder's database"):
            recorded.read(fail)
        assert len(logged) == lines
    recorded.close()


def test_states_of_unknown_cameras_beyond_the_bound_are_purged(recorder: Rig) -> None:
    recorder.verdicts([verdict(0)])
    housekeeping(recorder)
    judged = StateWithReason(State.OFFLINE, "gone")
    states = CameraStates(recorder.engine, 3)
    states.save([(SavedState(f"lab/{number}", judged, 1, 10.0), 0) for number in range(2)])

    def stored() -> list[str]:
        with recorder.engine.begin() as connection:
            return sorted(each.camera for each in read_states(connection))

    states.purge()
    assert stored() == ["lab/0", "lab/1", CAMERA]
    states.save([(SavedState("lab/2", judged, 1, 10.0), 0)])
    states.purge()
    assert stored() == [CAMERA]


def test_a_late_state_silent_is_ignored_if_another_recorder_has_newer_frames(recorder: Rig) -> None:
    recorder.verdicts([verdict(0)])
    silent = SavedState(CAMERA, StateWithReason(State.SILENT, "no frame"), 1, 10.0)
    states = CameraStates(recorder.engine, 3)
    states.save([(silent, 1)])
    with recorder.engine.begin() as connection:
        assert [each for each in read_states(connection) if each.judged.state is State.SILENT] == []
    states.save([(silent, 2**52)])
    with recorder.engine.begin() as connection:
        assert [each.camera for each in read_states(connection) if each.judged.state is State.SILENT] == [CAMERA]


def test_a_database_of_an_earlier_release_has_no_states(recorder: Rig) -> None:
    with recorder.engine.begin() as connection:
        camera_states.drop(connection)
        assert read_states(connection) == []
