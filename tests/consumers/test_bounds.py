from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from consumers.database.tables import alerts, dead_letters
from consumers.evidence.quarantine import name_of
from consumers.recorder.purge import purge
from consumers.settings import Bounds
from schemas.pointillist_pb2 import DeadLetter
from schemas.ranges import RangeSet
from tests.consumers.recorder_rig import BOOT, CAMERA, MakeRig, Rig, dead_letter, sign_as_processor, verdict

KIB = 1024


def record_letters(rig: Rig, letters: list[DeadLetter]) -> None:
    """Record dead letters in one transaction."""
    topic = rig.settings.dead_letters_topic
    start = rig.offsets.get((topic, 0), 0)
    values = [(start + n, sign_as_processor(letter)) for n, letter in enumerate(letters)]
    rig.feed([rig.record(topic, b"", value, "DeadLetter", offset) for offset, value in values])


def foreign_letters(count: int) -> list[DeadLetter]:
    """Return dead letters of payloads from outside the fleet."""
    return [dead_letter(n, verified=False, payload=b"x" * 4096) for n in range(count)]


def test_a_flood_of_unverified_letters_evicts_neither_frames_nor_verified_letters(make_rig: MakeRig) -> None:
    bounds = Bounds(database_bytes=100 * KIB, dead_letter_bytes=10 * KIB, foreign_letter_bytes=200 * KIB, purge_rows=50)
    rig = make_rig(bounds=bounds)
    rig.verdicts(verdict(n) for n in range(20))
    record_letters(rig, [dead_letter(20, verified=True)])
    for _ in range(10):
        record_letters(rig, foreign_letters(100))
        purge(rig.store, bounds)
    assert rig.count("frames") == 20
    record_letters(rig, [dead_letter(21, verified=True)])
    with rig.records() as records:
        assert records.dead_lettered(CAMERA, BOOT) == RangeSet([(20, 21)])
        assert records.foreign_count() == 1000
    held = rig.store.bytes_held()
    assert 150 * KIB < held["foreign_letters"] <= 200 * KIB
    assert rig.count("dead_letters") < 60


@pytest.mark.parametrize("make_rig", ["sqlite"], indirect=True)
def test_the_counted_bytes_of_frames_are_close_to_the_size_of_the_database(make_rig: MakeRig) -> None:
    rig = make_rig()
    before = rig.store.bytes_held()["database"]
    for start in range(0, 5000, 500):
        rig.verdicts(verdict(n) for n in range(start, start + 500))
    held = rig.store.bytes_held()
    assert 0.7 < (held["database"] - before) / held["frames"] < 1.1


def test_frames_are_kept_by_age_while_the_disk_has_space(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig()
    rig.verdicts(verdict(n) for n in range(300))
    monkeypatch.setattr("consumers.recorder.purge.LEAST_BYTES", 1)
    monkeypatch.setattr("consumers.recorder.purge.POSTGRESQL_BYTES", 2**30)
    monkeypatch.setattr("consumers.recorder.purge.free_bytes", lambda _: 2**30)
    assert not purge(rig.store, Bounds())
    assert rig.count("frames") == 300
    # The disk is full: the frames may keep half of their bytes.
    monkeypatch.setattr("consumers.recorder.purge.free_bytes", lambda _: 0)
    monkeypatch.setattr("consumers.recorder.purge.POSTGRESQL_BYTES", rig.store.bytes_held()["frames"] / 2)
    purge(rig.store, Bounds(purge_rows=200))
    assert rig.count("frames") == 100
    rig.verdicts(verdict(n) for n in range(300))
    assert rig.count("frames") == 100
    while purge(rig.store, Bounds(database_age_s=1e-9)):
        pass
    assert rig.count("frames") == 0
    with rig.records() as records:
        assert records.recorded(CAMERA, BOOT) == RangeSet([(0, 299)])


@pytest.mark.parametrize("make_rig", ["sqlite"], indirect=True)
@pytest.mark.parametrize("filled_by", ["backup", "others"])
def test_other_files_on_the_disk_evict_frames_of_half_their_size_and_a_backup_none(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, filled_by: str
) -> None:
    rig = make_rig()
    for start in range(0, 6000, 500):
        rig.verdicts(verdict(n) for n in range(start, start + 500))
    held = rig.store.bytes_held()["frames"]
    monkeypatch.setattr("consumers.recorder.purge.LEAST_BYTES", 1)
    monkeypatch.setattr("consumers.recorder.purge.free_bytes", lambda _: held // 2 if filled_by == "others" else 0)
    if filled_by == "backup":
        (Path(rig.engine.url.database or "").parent / ".backup.sqlite").write_bytes(bytes(held))
    for _ in range(10):
        purge(rig.store, Bounds())
    kept = rig.store.bytes_held()["frames"] / held
    assert 0.6 < kept < 0.8 if filled_by == "others" else kept == 1


def test_nothing_expires_while_the_time_is_unknown(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.verdicts(verdict(seq, flagged=True) for seq in range(3))
    record_letters(rig, [dead_letter(3, verified=True)])
    oldest = Bounds(database_age_s=1e-9, quarantine_age_s=1e-9, dead_letter_age_s=1e-9)
    for now_ms, kept in ((0, (3, 3, 1)), (2**50, (0, 0, 0))):
        while purge(rig.store, oldest, now_ms):
            pass
        assert (rig.count("frames"), rig.count("quarantine"), rig.count("dead_letters")) == kept


def test_frames_that_another_recorder_has_purged_are_not_recorded_again(make_rig: MakeRig) -> None:
    one, other = make_rig(group="g"), make_rig(group="g")
    one.verdicts(verdict(n) for n in range(4))
    other.offsets |= one.offsets
    other.verdicts([verdict(4)])  # the other recorder caches that nothing was purged
    purge(one.store, Bounds(database_rows=1))
    assert other.verdicts(verdict(n) for n in range(3)).duplicates == 3
    assert one.count("frames") == 1


def test_a_quarantined_frame_that_cannot_be_deleted_stops_no_other_purge(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = Bounds(database_rows=10, quarantine_bytes=1, purge_rows=50)
    rig = make_rig(bounds=bounds)
    for seq in range(4):
        rig.verdicts([verdict(seq, flagged=True)])
    rig.verdicts(verdict(seq) for seq in range(4, 30))
    held, names = rig.store.bytes_held()["quarantine"], rig.count("quarantine")
    files = rig.store.quarantine._files
    remove = files.rm_file
    rejected = f"{name_of((CAMERA, BOOT, 2))}.json"

    def remove_or_fail(path: str) -> None:
        if path.endswith(rejected):
            raise PermissionError("AccessDenied when calling the DeleteObject operation")
        remove(path)

    with monkeypatch.context() as broken, capture_logs() as logs:
        broken.setattr(files, "rm_file", remove_or_fail)
        for _ in range(3):  # it is passed over for an hour
            assert not purge(rig.store, bounds)
            assert rig.count("quarantine") == 1
    assert [(line["event"], line["name"]) for line in logs] == [("quarantine_not_purged", rejected[:-5])]
    assert (names, rig.count("frames") <= 10) == (4, True)
    assert 0 < rig.store.bytes_held()["quarantine"] < held
    purge(rig.store, bounds)
    assert rig.count("quarantine") == 1
    later_s = time.monotonic() + 3601
    monkeypatch.setattr("consumers.evidence.quarantine.time.monotonic", lambda: later_s)
    purge(rig.store, bounds)
    assert rig.count("quarantine") == 0
    assert not list((rig.folder / "quarantine").rglob("*.*"))


@pytest.mark.parametrize("wanted", ["", "vehicle"])
def test_a_camera_with_many_alerts_evicts_no_alert_of_another(make_rig: MakeRig, wanted: str) -> None:
    rig = make_rig()
    template: dict[str, Any] = {column.name: column.type.python_type() for column in alerts.columns}
    template |= {"wanted": wanted, "ended_ms": 1, "published": True, "kind": "strip"}
    others = {"lab/noisy": 100, "lab/two": 2, CAMERA: 1}
    made = [
        template | {"alert_id": f"{camera}/{n}", "camera": camera, "raised_ms": 1000 + n if count > 2 else n}
        for camera, count in others.items()
        for n in range(count)
    ]
    with rig.engine.begin() as connection:
        connection.execute(alerts.insert(), made)
    while purge(rig.store, Bounds(alert_rows=20, purge_rows=30)):
        pass
    with rig.engine.begin() as connection:
        left = set(connection.scalars(select(alerts.c.alert_id)))
    assert left == {f"{CAMERA}/0", "lab/two/0", "lab/two/1", *(f"lab/noisy/{n}" for n in range(83, 100))}


def test_a_camera_whose_frames_are_rejected_evicts_no_dead_letter_of_another(make_rig: MakeRig) -> None:
    bounds = Bounds(dead_letter_bytes=100 * KIB, purge_rows=7)
    rig = make_rig(bounds=bounds)
    quiet = [dead_letter(n, verified=True, payload=b"x" * 1024) for n in range(5)]
    record_letters(rig, quiet)
    for first in range(0, 200, 40):
        noisy = [
            dead_letter(n, verified=True, camera_id="lab/noisy", payload=b"x" * 1024) for n in range(first, first + 40)
        ]
        record_letters(rig, noisy)
        purge(rig.store, bounds)
    with rig.engine.begin() as connection:
        kept = connection.execute(select(dead_letters.c.camera, dead_letters.c.seq).order_by(dead_letters.c.seq)).all()
    assert [seq for camera, seq in kept if camera == CAMERA] == list(range(5))
    left = [seq for camera, seq in kept if camera == "lab/noisy"]
    assert left == list(range(200 - len(left), 200))
    assert 70 * KIB < rig.store.bytes_held()["dead_letters"] <= 100 * KIB
    with rig.records() as records:
        assert records.dead_lettered("lab/noisy", BOOT) == RangeSet([(0, 199)])
