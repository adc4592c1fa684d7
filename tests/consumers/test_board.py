"""Who is silent is told by the monotonic clock: cameras' clocks and this machine's may jump."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import delete, update

from consumers.board.board import Board
from consumers.board.camera import Camera, Described
from consumers.board.shown import Shown
from consumers.cameras.state import State
from consumers.database.tables import boots, frames, tallies
from consumers.database.tallies import SHOWN_TO_MS
from consumers.evidence.probe_plan import Seen
from consumers.metrics import Meters, places_of
from schemas.pointillist_pb2 import DEGRADED, OFFLINE, ONLINE, RAW, Meta, Status, Turn
from tests.consumers.recorder_rig import BOOT, CAMERA, PNG, MakeRig, Rig, signed, verdict

SILENT_AFTER_S = 10.0
HOUR_MS = 3_600_000


class Clock:
    """A monotonic clock in milliseconds that a test moves."""

    now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


def loaded(rig: Rig) -> list[Camera]:
    """What a recorder that starts now shows."""
    return Shown(rig.engine, rig.bounds.strangers).load()


def saved(rig: Rig, count: int = 1_000) -> None:
    """Housekeeping, once."""
    changed, left_from_ms = rig.board.unsaved(count)
    Shown(rig.engine, rig.bounds.strangers).save(changed, left_from_ms)


@pytest.fixture
def clock(rig: Rig) -> Clock:
    clock = Clock()
    rig.board = Board(rig.settings, clock)
    online = signed(Status(state=ONLINE, boot_id=BOOT))
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), online, "Status")])
    return clock


def shown(rig: Rig, clock: Clock) -> Described:
    [camera] = rig.board.describe(clock())
    return camera


def test_a_camera_whose_clock_was_set_back_an_hour_is_not_silent(rig: Rig, clock: Clock) -> None:
    now_ms = time.time_ns() // 10**6
    rig.verdicts([verdict(0, captured_ms=now_ms, class_name="before", preview=PNG)])
    for seq in range(1, 9):
        clock.now_ms += 5000
        late = verdict(seq, captured_ms=now_ms - HOUR_MS + 5000 * seq, class_name="after", preview=b"JPEG")
        rig.verdicts([late])
        assert shown(rig, clock)["status"] == "online"
        assert shown(rig, clock)["age_s"] == 0
    assert shown(rig, clock)["verdict"] == {"class": "after", "confidence": pytest.approx(0.9), "model": "scene-1"}
    assert rig.board.preview(CAMERA) == b"JPEG"
    registry = CollectorRegistry()
    Meters(registry, places_of(rig.settings)).show_cameras(rig.board.cameras(), [], clock(), 3600)
    assert registry.get_sample_value("pointillist_camera_age_seconds", {"camera_id": CAMERA}) == 0


def test_a_camera_that_is_degraded_offline_or_silent_has_a_metric_as_long_as_it_is(rig: Rig, clock: Clock) -> None:
    registry = CollectorRegistry()
    meters = Meters(registry, places_of(rig.settings))

    def impaired() -> set[str]:
        rig.board.judge(clock(), 0)
        meters.show_cameras(rig.board.cameras(), rig.board.faulty(10), clock(), 3600)
        return {
            sample.labels["state"]
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "pointillist_camera_impaired" and sample.labels["camera_id"] == CAMERA
        }

    rig.verdicts([verdict(0)])
    assert impaired() == set()
    said = ((DEGRADED, {"degraded"}), (OFFLINE, {"offline"}), (ONLINE, set[str]()))
    for number, (state, expected) in enumerate(said, 1):
        message = signed(Status(state=state, boot_id=BOOT, turn=Turn(connection=1, message=number, at_ms=100 * number)))
        rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), message, "Status")])
        assert impaired() == expected
    clock.now_ms += 60_000
    assert impaired() == {"silent"}


def test_a_camera_that_restarts_in_1970_is_not_silent(rig: Rig, clock: Clock) -> None:
    rig.verdicts([verdict(50)])
    clock.now_ms += 60_000
    assert shown(rig, clock)["status"] == "silent"
    rig.verdicts([verdict(0, boot=77, captured_ms=60_000, class_name="after", preview=b"JPEG")])
    camera = shown(rig, clock)
    assert (camera["status"], camera["age_s"]) == ("online", 0)
    assert rig.board.preview(CAMERA) == b"JPEG"


def test_an_old_frame_that_comes_late_does_not_replace_a_newer_one(rig: Rig, clock: Clock) -> None:
    rig.verdicts([verdict(5, class_name="new", preview=b"new")])
    rig.verdicts([verdict(4, class_name="old", preview=b"old")])
    assert shown(rig, clock)["verdict"] == {"class": "new", "confidence": pytest.approx(0.9), "model": "scene-1"}
    assert rig.board.preview(CAMERA) == b"new"


def test_the_recorders_own_clock_may_jump_without_a_word_about_any_camera(
    rig: Rig, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.verdicts([verdict(0)])
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    clock.now_ms += 5000
    assert shown(rig, clock)["status"] == "online"
    clock.now_ms += 6000
    assert (shown(rig, clock)["status"], shown(rig, clock)["age_s"]) == ("silent", 11)


def test_a_recorder_that_starts_again_knows_how_long_a_camera_was_silent(rig: Rig, clock: Clock) -> None:
    rig.verdicts([verdict(0)])
    found = loaded(rig)
    for camera in found:
        assert camera.last is not None
        camera.last = camera.last._replace(recorded_ms=camera.last.recorded_ms - 60_000)
    board = Board(rig.settings, clock)
    board.restore(found)
    [camera] = board.cameras()
    age_s = camera.age_s(clock())
    assert age_s is not None
    assert 60 <= age_s < 120
    assert camera.judge(clock(), SILENT_AFTER_S).state is State.SILENT


def test_the_cameras_heard_last_are_restored_whenever_they_were_first_heard(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.board.shown.MAX_CAMERAS", 2)
    heard = [("lab/a", 1, 10), ("lab/b", 1, 20), ("lab/c", 1, 30), ("lab/a", 2, 40)]
    for camera, boot, _ in heard:
        rig.verdicts([verdict(0, boot=boot)], camera)
    with rig.engine.begin() as connection:
        for camera, boot, last_ms in heard:
            of_boot = (boots.c.camera == camera, boots.c.boot == boot)
            connection.execute(update(boots).where(*of_boot).values(last_ms=last_ms))
    restored = {camera.name: camera for camera in loaded(rig)}
    assert set(restored) == {"lab/a", "lab/c"}
    assert restored["lab/a"].frames == 2
    assert restored["lab/a"].last is not None
    assert restored["lab/a"].last.boot == 2


def test_frames_show_that_a_camera_is_not_offline_though_the_recorders_clock_jumps(
    rig: Rig, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.verdicts([verdict(0)])
    gone = Status(state=OFFLINE, boot_id=BOOT, turn=Turn(connection=1, message=1, at_ms=100))
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), signed(gone), "Status")])
    now_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns - HOUR_MS * 10**6)
    clock.now_ms += 5000
    rig.verdicts([verdict(1)])
    assert shown(rig, clock)["status"] == "offline"
    clock.now_ms += 6000
    rig.verdicts([verdict(2)])
    assert shown(rig, clock)["status"] == "online"
    clock.now_ms += 11_000
    assert shown(rig, clock)["status"] == "offline"


def test_a_board_that_was_saved_is_the_same_after_a_restart(rig: Rig, clock: Clock) -> None:
    rig.verdicts([verdict(n, flagged=n % 3 == 0) for n in range(60)])
    rig.verdicts([verdict(n) for n in range(4)], "lab/b")
    saved(rig)
    before = {camera.name: camera.describe(clock(), SILENT_AFTER_S) | {"age_s": None} for camera in rig.board.cameras()}
    rig.close()
    rig.open()
    rig.board = Board(rig.settings, clock)
    rig.board.restore(loaded(rig))
    after = {camera.name: camera.describe(clock(), SILENT_AFTER_S) | {"age_s": None} for camera in rig.board.cameras()}
    assert after == before
    assert before[CAMERA]["flagged_share"] == pytest.approx(16 / 50)


def test_what_was_recorded_after_the_board_was_saved_is_shown_after_a_restart(rig: Rig, clock: Clock) -> None:
    rig.verdicts([verdict(0, class_name="before")])
    rig.verdicts([verdict(0, class_name="before")], "lab/b")
    saved(rig, 1)
    time.sleep(0.002)
    rig.verdicts([verdict(1, class_name="after")])
    rig.verdicts([verdict(0, class_name="after")], "lab/c")
    restored = {camera.name: camera for camera in loaded(rig)}
    shown = {name: (camera.frames, camera.last and camera.last.class_name) for name, camera in restored.items()}
    assert shown == {CAMERA: (2, "after"), "lab/b": (1, "before"), "lab/c": (1, "after")}


def test_a_restart_reads_neither_frames_nor_starts_of_cameras_that_were_saved(rig: Rig) -> None:
    for boot in range(1, 5):
        rig.verdicts([verdict(n, boot=boot) for n in range(20)])
    saved(rig)
    with rig.engine.begin() as connection:
        connection.execute(delete(boots))
        connection.execute(delete(frames).where(frames.c.boot < 4))
    (camera,) = loaded(rig)
    assert (camera.frames, camera.last and camera.last.boot) == (80, 4)


def test_a_database_of_a_release_without_saved_cameras_is_read_once(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.verdicts([verdict(n, flagged=False) for n in range(3)])
    with rig.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE shown")
        connection.exec_driver_sql("DROP INDEX evidence_waiting")
        connection.exec_driver_sql("DROP INDEX cameras_by_age")
        connection.execute(delete(tallies).where(tallies.c.name == SHOWN_TO_MS))
    rig.close()
    rig.open()
    assert [(camera.frames, len(camera.probes)) for camera in loaded(rig)] == [(3, 3)]
    with rig.engine.begin() as connection:
        connection.execute(delete(boots))
    assert [(camera.frames, len(camera.probes)) for camera in loaded(rig)] == [(3, 3)]


def test_a_database_that_an_earlier_release_went_on_with_is_read_through_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.board.shown.REPLAYED", 5)
    rig.verdicts([verdict(0)])
    saved(rig)
    time.sleep(0.002)
    rig.verdicts([verdict(n, flagged=False) for n in range(1, 9)])
    monkeypatch.setattr(Shown, "_as_saved", None)
    assert [(camera.frames, len(camera.probes)) for camera in loaded(rig)] == [(9, 8)]


def test_a_camera_that_sends_rarely_is_silent_only_when_it_has_missed_frames(rig: Rig, clock: Clock) -> None:
    slow = Meta(boot_id=BOOT, frames_per_second=1 / 40, probe_share=0.05, dropped_per_block=16, profile=RAW)
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), signed(slow), "Meta")])
    rig.verdicts([verdict(0)])
    clock.now_ms += 99_000
    assert shown(rig, clock)["status"] == "online"
    clock.now_ms += 2_000
    assert shown(rig, clock)["status"] == "silent"


def test_only_what_changed_is_described_again(rig: Rig, clock: Clock) -> None:
    for name in ("lab/a", "lab/b", "lab/c"):
        rig.verdicts([verdict(0)], name)
    first = rig.board.describe_since(0, clock())
    assert first["all"]
    assert changed(first) == {"lab/a", "lab/b", "lab/c", CAMERA}
    version = rig.board.version
    assert changed(rig.board.describe_since(version, clock())) == set()
    rig.verdicts([verdict(1)], "lab/b")
    later = rig.board.describe_since(version, clock())
    assert (changed(later), later["all"]) == ({"lab/b"}, False)
    clock.now_ms += 11_000
    silent = rig.board.describe_since(rig.board.version, clock())
    assert changed(silent) == {"lab/a", "lab/b", "lab/c"}
    assert rig.board.describe_since(rig.board.version + 1, clock())["all"]


def changed(answer: dict[str, object]) -> set[object]:
    cameras = answer["cameras"]
    assert isinstance(cameras, list)
    return {camera["camera"] for camera in cameras}


def test_the_plan_of_probes_hears_of_a_camera_when_it_begins_and_when_it_stops(rig: Rig, clock: Clock) -> None:
    meta = Meta(boot_id=BOOT, frames_per_second=2, probe_share=0.05, dropped_per_block=16, profile=RAW)
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), signed(meta), "Meta")])
    assert rig.board.stirred(clock()) == [CAMERA]
    rig.verdicts([verdict(0)])
    (seen,) = rig.board.stirred(clock())
    assert isinstance(seen, Seen)
    assert (seen.camera, seen.is_new, seen.meta.probe_share) == (CAMERA, True, 0.05)
    clock.now_ms += 5_000
    rig.verdicts([verdict(1)])
    assert rig.board.stirred(clock()) == []
    clock.now_ms += 9_000
    assert rig.board.stirred(clock()) == []
    clock.now_ms += 2_000
    assert rig.board.stirred(clock()) == [CAMERA]
