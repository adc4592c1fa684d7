"""Who is silent is told by the monotonic clock: cameras' clocks and this machine's may jump."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry

from consumers.board import Board, load_cameras
from consumers.meters import Meters, places_of
from schemas.pointillist_pb2 import ONLINE, Status
from tests.consumers.recorder_rig import CAMERA, PNG, Rig, signed, verdict

SILENT_AFTER_S = 10.0
HOUR_MS = 3_600_000


class Clock:
    """A monotonic clock in milliseconds that a test moves."""

    now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock(rig: Rig) -> Clock:
    clock = Clock()
    rig.board = Board(rig.settings, clock)
    online = signed(Status(state=ONLINE))
    rig.feed([rig.record(rig.settings.events_topic, CAMERA.encode(), online, "Status")])
    return clock


def shown(rig: Rig, clock: Clock) -> dict[str, object]:
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
    Meters(registry, places_of(rig.settings)).show_cameras(rig.board.cameras(), clock(), 3600)
    assert registry.get_sample_value("pointillist_camera_age_seconds", {"camera_id": CAMERA}) == 0


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
    with rig.engine.connect() as connection:
        found = load_cameras(connection)
    for camera in found:
        assert camera.last is not None
        camera.last = camera.last._replace(recorded_ms=camera.last.recorded_ms - 60_000)
    board = Board(rig.settings, clock)
    board.restore(found)
    [camera] = board.cameras()
    age_s = camera.age_s(clock())
    assert age_s is not None
    assert 60 <= age_s < 120
    assert camera.state(clock(), SILENT_AFTER_S) == "silent"
