"""The live audit: it reads only changes, and its result equals that of an audit of the whole database."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from consumers.conservation.balance import BootAudit, Counts
from consumers.conservation.changes import Changes
from consumers.conservation.ledgers import SignedLedgers
from consumers.conservation.live import LiveAudit
from consumers.conservation.result import save_result
from consumers.conservation.rounds import LogOffsets
from consumers.console.api.routes import ROOT
from consumers.database.engine import SETTLED_MS
from consumers.database.queries import Records
from consumers.database.tables import frames, ledgers
from consumers.recorder.purge import purge
from consumers.settings import Bounds
from schemas.identity import CameraId
from schemas.ranges import RangeSet
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.recorder_rig import CAMERA, KEYS, MakeRig, Rig, dead_letter, ledger, signed, verdict
from tests.waiting import wait_until

NOTHING = LogOffsets({}, {}, {})


@pytest.fixture
def live(rig: Rig) -> Iterator[LiveAudit]:
    audit = LiveAudit(rig.url, KEYS)
    yield audit
    audit.close()


def full_audit(rig: Rig) -> dict[str, int]:
    """Return the counts of an audit that reads the whole database."""
    with rig.records() as records:
        signed_ledgers = SignedLedgers.read(records.ledgers(), KEYS).rows
        recorded, dead_lettered = records.recorded_by_boot(), records.dead_lettered_by_boot()
        duplicates = records.duplicates_by_boot()
        boots = []
        for camera, boot in sorted({*signed_ledgers, *recorded, *dead_lettered}):
            audit = BootAudit(CameraId(camera), boot, duplicates=duplicates.get((camera, boot), 0))
            audit.take_ledger(signed_ledgers.get((CameraId(camera), boot)), None, spooled=False)
            audit.recorded.update(records.recorded(camera, boot))
            audit.dead_lettered.update(records.dead_lettered(camera, boot))
            audit.settle(0)
            boots.append(audit)
        return Counts.of(boots, records.foreign_count()).as_dict()


@pytest.mark.parametrize("seed", range(3))
def test_an_incremental_audit_equals_an_audit_of_the_whole_database(rig: Rig, live: LiveAudit, seed: int) -> None:
    rng = random.Random(seed)
    following = dict.fromkeys(range(1, 6), 0)
    for step in range(12):
        for boot in rng.sample(sorted(following), 3):
            first, following[boot] = following[boot], following[boot] + rng.randrange(12)
            seqs = [seq for seq in range(first, following[boot]) if rng.random() < 0.8]
            seqs += [rng.randrange(first) for _ in range(2) if first]
            if seqs:
                rig.verdicts(verdict(seq, boot=boot) for seq in rng.sample(seqs, len(seqs)))
            if rng.random() < 0.5:
                rig.letter(dead_letter(rng.randrange(max(1, first)), verified=rng.random() < 0.7, boot=boot))
            if rng.random() < 0.7:
                shed = [(0, rng.randrange(first))] if first and rng.random() < 0.3 else []
                rig.ledger(ledger(step + 1, following[boot] + rng.randrange(5), shed, boot=boot))
        if step % 3 != 1:
            document = live.refresh(NOTHING)
            expected = full_audit(rig)
            assert {name: document[name] for name in expected} == expected
    assert expected["frames_recorded"] > 50


def test_an_unchanged_boot_is_not_audited_again(rig: Rig, live: LiveAudit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTLED_MS, rig.engine.dialect.name, 0)
    for boot in range(1, 40):
        rig.verdicts(verdict(seq, boot=boot) for seq in range(3))
        rig.ledger(ledger(1, 4, boot=boot))
    written_ms = time.time_ns() // 10**6
    wait_until(lambda: time.time_ns() // 10**6 > written_ms)
    live.refresh(NOTHING)
    settled: list[int] = []
    monkeypatch.setattr(BootAudit, "settle", lambda boot, _: settled.append(boot.boot_id))
    rig.verdicts([verdict(3, boot=7)])
    live.refresh(NOTHING)
    assert set(settled) == {7}


def test_purged_frames_stay_recorded(make_rig: MakeRig) -> None:
    rig = make_rig(bounds=Bounds(database_rows=5))
    live = LiveAudit(rig.url, KEYS)
    rig.verdicts(verdict(seq) for seq in range(20))
    while purge(rig.store, rig.settings.bounds):
        pass
    document = live.refresh(NOTHING)
    live.close()
    assert document["frames_recorded"] == 20


def test_a_ledger_without_its_cameras_signature_is_rejected(rig: Rig, live: LiveAudit) -> None:
    rig.ledger(ledger(1, 5))
    with rig.engine.begin() as connection:
        connection.execute(update(ledgers).values(message=b"another"))
    document = live.refresh(NOTHING)
    assert (document["frames_published"], document["ledgers_refused"]) == (0, 1)


def test_a_missing_frame_counts_as_lost_once_all_earlier_records_of_kafka_are_recorded(
    rig: Rig, live: LiveAudit
) -> None:
    frames, verdicts = ("frames", 0), (rig.settings.verdicts_topic, 0)
    rig.verdicts(verdict(seq) for seq in (0, 1, 3))
    message = ledger(1, 6)
    message.confirmed_to = 5
    topic = rig.settings.events_topic
    rig.feed([rig.record(topic, CAMERA.encode(), signed(message), "Ledger")])

    def lost_at(processed: int, results: int) -> object:
        document = live.refresh(LogOffsets({frames: processed}, {verdicts: results}, {frames: 5}))
        return document["frames_lost"]

    # First the processors, then the recorder have not reached the end that the log had.
    assert [lost_at(4, 3), lost_at(4, 3), lost_at(4, 3), lost_at(5, 4), lost_at(5, 4)] == [0] * 5
    rig.verdicts([verdict(4)])
    assert lost_at(5, 4) == 1
    document = live.document
    assert document is not None
    assert document["lost"] == [{"camera_id": CAMERA, "boot_id": f"{message.boot_id:016x}", "ranges": [(2, 2)]}]
    rig.verdicts([verdict(2)])
    assert lost_at(5, 5) == 0


def test_frames_of_a_damaged_database_count_as_unread_until_its_file_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "records.sqlite"
    file.with_name(f"{file.name}.damaged-900").touch()
    aside = file.with_name(f"{file.name}.damaged-1000")
    aside.touch()
    rig = Rig(tmp_path, f"sqlite:///{file}")
    empty = ledger(1, 0, boot=3)
    empty.closed = True
    rig.ledger(empty)
    for started_ms, boot in ((1000, 1), (1001, 2)):
        message = ledger(1, 3, boot=boot)
        message.started_ms, message.confirmed_to = started_ms, 3
        rig.ledger(message)
        rig.verdicts([verdict(2, boot=boot)])
    live = LiveAudit(rig.url, KEYS)
    found = two_rounds(live)
    assert (found["frames_recorded"], found["frames_unread"], found["frames_lost"]) == (2, 2, 2)
    assert found["lost"] == [{"camera_id": CAMERA, "boot_id": f"{2:016x}", "ranges": [(0, 1)]}]
    aside.unlink()
    purge(rig.store, Bounds(camera_ledgers=2))  # replaces the ledger of the empty boot by a sum
    found = live.refresh(NOTHING)
    assert (found["frames_unread"], found["frames_lost"]) == (0, 4)
    live.close()
    rig.close()


def test_a_lost_frame_stays_lost_while_its_boot_continues(rig: Rig, live: LiveAudit) -> None:
    rig.verdicts([verdict(0), verdict(1)])
    found: list[Any] = []
    for seq in range(3, 15):  # frame 2 is lost, and at each reading one later frame is in flight
        message = ledger(seq, seq + 1)
        message.confirmed_to = seq + 1
        rig.ledger(message)
        found.append(live.refresh(LogOffsets({}, {}, {}))["frames_lost"])
        rig.verdicts([verdict(seq)])
    assert found == sorted(found)
    assert found[-1] == 1


@pytest.mark.parametrize("topic", ["frames", "results"])
def test_a_recreated_topic_begins_another_round(rig: Rig, live: LiveAudit, topic: str) -> None:
    message = ledger(1, 2)
    message.confirmed_to = 2
    rig.ledger(message)
    frames, verdicts = ("frames", 0), (rig.settings.verdicts_topic, 0)

    def lost_at(processed: int, frames_end: int, results_end: int) -> object:
        logs = LogOffsets({frames: processed}, {verdicts: results_end}, {frames: frames_end})
        return live.refresh(logs)["frames_lost"]

    before = (3, 9, 0) if topic == "frames" else (9, 9, 7)
    for _ in range(4):
        assert lost_at(*before) == 0
    assert [lost_at(2, 2, 0) for _ in range(4)] == [0, 0, 0, 2]


def test_ledgers_summed_during_a_round_hide_no_loss(make_rig: MakeRig) -> None:
    rig = make_rig(bounds=Bounds(camera_ledgers=1))
    live = LiveAudit(rig.url, KEYS)

    def publish_two(boot: int, camera: str) -> None:
        message = ledger(1, 2, boot=boot)
        message.confirmed_to = 2
        rig.ledger(message, camera)

    for boot in range(1, 7):
        publish_two(boot, "site/another")
    publish_two(1, "site/zebra")
    rounds = [live.refresh(NOTHING)["frames_lost"] for _ in range(3)]
    while purge(rig.store, rig.settings.bounds):
        pass
    assert rig.count("ledgers") == 5
    assert [*rounds, live.refresh(NOTHING)["frames_lost"]] == [0, 0, 0, 14]
    live.close()


def test_the_console_shows_the_last_saved_result(console: ConsoleRig, recorder: Rig) -> None:
    browser = console.browser()
    assert browser.get(f"{ROOT}/audit").json() == {"error": "the monitor has not finished an audit yet"}
    live = LiveAudit(recorder.url, KEYS)
    for count in (2, 5):
        recorder.verdicts(verdict(seq) for seq in range(count))
        document = live.refresh(NOTHING)
        save_result(recorder.engine, document)
        assert browser.get(f"{ROOT}/audit").json() == document
    live.close()
    assert "0</strong> are lost" in browser.get("/system").text


def test_duplicates_before_the_start_of_the_audit_count(rig: Rig) -> None:
    for _ in range(3):
        rig.verdicts([verdict(0), verdict(1)])
    fresh = LiveAudit(rig.url, KEYS)
    found = fresh.refresh(NOTHING)
    fresh.close()
    assert found["duplicates_removed"] == full_audit(rig)["duplicates_removed"] == 4


def test_frames_of_a_recorder_with_a_slow_clock_are_found_by_their_row_number(rig: Rig, live: LiveAudit) -> None:
    rig.verdicts([verdict(0)])
    live.refresh(NOTHING)
    rig.verdicts([verdict(1), verdict(2)])
    earlier_ms = time.time_ns() // 10**6 - 2 * SETTLED_MS[rig.engine.dialect.name]
    rig.store.frames.make_room(earlier_ms)
    with rig.engine.begin() as connection:
        connection.execute(update(frames).where(frames.c.seq == 1).values(recorded_ms=earlier_ms))
    found = live.refresh(NOTHING)
    assert found["frames_recorded"] == full_audit(rig)["frames_recorded"] == 3


def test_frames_committed_long_after_their_recording_time_are_not_lost(
    rig: Rig, live: LiveAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTLED_MS, rig.engine.dialect.name, 0)
    rig.verdicts([verdict(0)])
    message = ledger(1, 3)
    message.confirmed_to = 3
    rig.ledger(message)
    live.refresh(NOTHING)
    rig.verdicts([verdict(1)])
    earlier_ms = time.time_ns() // 10**6 - 60_000
    rig.store.frames.make_room(earlier_ms)
    with rig.engine.begin() as connection:
        connection.execute(update(frames).where(frames.c.seq == 1).values(recorded_ms=earlier_ms))
    found = two_rounds(live)
    assert (found["frames_recorded"], found["frames_lost"]) == (2, 1)


def test_a_failed_first_reading_is_repeated_completely(
    rig: Rig, live: LiveAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> Changes:
        raise OperationalError("select", {}, Exception("away"))

    rig.verdicts([verdict(0)])
    rig.letter(dead_letter(1, verified=True))
    with monkeypatch.context() as patched:
        patched.setattr("consumers.conservation.live.changes", away)
        with pytest.raises(OperationalError):
            live.refresh(NOTHING)
    rig.verdicts([verdict(2)])
    rig.letter(dead_letter(3, verified=True))
    rig.ledger(ledger(1, 4))
    found = live.refresh(NOTHING)
    expected = full_audit(rig)
    assert {name: found[name] for name in expected} == expected
    assert (found["frames_recorded"], found["frames_dead_lettered"]) == (2, 2)


def two_rounds(live: LiveAudit) -> dict[str, object]:
    """Finish the current round and a whole one. Return the result."""
    return [live.refresh(NOTHING) for _ in range(8)][-1]


@pytest.mark.parametrize("read_between", [False, True])
def test_frames_whose_dead_letters_were_purged_between_two_readings_are_not_lost(
    make_rig: MakeRig, read_between: bool
) -> None:
    rig = make_rig(bounds=Bounds(dead_letter_bytes=0))
    live = LiveAudit(rig.url, KEYS)
    live.refresh(NOTHING)
    for seq in range(2):
        rig.letter(dead_letter(seq, verified=True))
    if read_between:
        live.refresh(NOTHING)
    message = ledger(1, 3)
    message.confirmed_to = 3
    rig.ledger(message)
    found = two_rounds(live)
    live.close()
    assert (found["frames_dead_lettered"], found["frames_lost"]) == (2, 1)


def test_a_round_that_fails_at_its_end_ends_at_the_next_reading(
    rig: Rig, live: LiveAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> RangeSet:
        raise OperationalError("select", {}, Exception("away"))

    message = ledger(1, 3)
    message.confirmed_to = 3
    rig.ledger(message)
    with monkeypatch.context() as patched:
        patched.setattr(Records, "dead_lettered", away)
        with pytest.raises(OperationalError):
            two_rounds(live)
    before = live.document
    assert before is not None
    assert (before["frames_pending"], before["lost_known_to_ms"]) == (3, 0)
    after = live.refresh(NOTHING)
    assert after["frames_lost"] == 3
    assert after["lost_known_to_ms"] != 0
