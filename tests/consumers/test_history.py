"""The history of sums by minute, which is kept longer than the frames."""

from __future__ import annotations

import time

import pytest

from consumers.database.history import MINUTE_MS, minutes
from consumers.recorder.purge import purge
from consumers.settings import Bounds
from schemas.messages.frame import ATTACKED, Truth
from schemas.pointillist_pb2 import SHED
from tests.consumers.recorder_rig import MakeRig, verdict


def test_a_minute_contains_the_sums_of_its_frames_without_duplicates(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig()
    now_ms = 1_000 * MINUTE_MS + 7_000
    monkeypatch.setattr(time, "time_ns", lambda: now_ms * 10**6)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # the writes of the quarantine take no time
    first = [verdict(n, captured_ms=now_ms - 100 * n, flagged=n == 1) for n in range(4)]
    first[0].class_id = 9
    first[2].truth += ATTACKED
    first[3].strip = SHED
    rig.verdicts(first)
    first.append(verdict(5, captured_ms=now_ms, truth=Truth(3, sticker=True).to_wire()))
    rig.verdicts([*first, verdict(4, captured_ms=now_ms - 50)], "lab/other")
    rig.verdicts(first)
    now_ms += MINUTE_MS
    rig.verdicts([verdict(9, captured_ms=now_ms - 20)])
    with rig.engine.begin() as connection:
        found = minutes(connection, 0)
    assert [each["minute_ms"] for each in found] == [1_000 * MINUTE_MS, 1_001 * MINUTE_MS]
    assert found[0] | {"minute_ms": 0} == {
        "minute_ms": 0, "frames": 11, "frame_bytes": 11 * 1768, "raw_bytes": 11 * 32 * 24 * 3,
        "late_ms": 2 * 600 + 50, "slowest_ms": 300, "judged": 7, "judged_correct": 5, "attacked": 2,
        "attacked_correct": 2, "checked": 6, "flagged": 2, "strip_shed": 2,
    }  # fmt: skip
    assert found[1]["frames"] == 1


def test_frames_of_a_camera_with_a_wrong_clock_are_recorded_and_count_as_not_late(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig()
    now_ms = 30_000_000 * MINUTE_MS
    monkeypatch.setattr(time, "time_ns", lambda: now_ms * 10**6)
    monkeypatch.setattr("consumers.database.history.LATEST_MS", 1000)
    rig.verdicts([verdict(n, captured_ms=now_ms - late_ms) for n, late_ms in enumerate((50, 1000, 1001, -1))])
    ahead = [verdict(n, captured_ms=2**53 - 1) for n in range(1100)]
    rig.verdicts([verdict(0, captured_ms=1), *ahead], "lab/wrong")
    with rig.engine.begin() as connection:
        [found] = minutes(connection, 0)
    assert (found["frames"], found["late_ms"], found["slowest_ms"]) == (4 + 1100, 1050, 1000)


def test_the_history_is_kept_after_its_frames_are_purged(make_rig: MakeRig) -> None:
    rig = make_rig(bounds=Bounds(database_rows=10, purge_rows=1_000))
    rig.verdicts([verdict(n) for n in range(300)])
    purge(rig.store, rig.bounds)
    assert rig.count("frames") == 10
    with rig.engine.begin() as connection:
        assert sum(int(str(each["frames"])) for each in minutes(connection, 0)) == 300
