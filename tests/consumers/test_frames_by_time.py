"""Frames in partitions of PostgreSQL: old ones are dropped by time, and each frame still counts once."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from sqlalchemy import text

from consumers.database import spans
from consumers.database.frames import Excess
from consumers.database.frames_by_time import FramesByTime
from consumers.database.spans import HOUR_MS, partition, spans_held
from consumers.database.tallies import FRAME_BYTES, FRAME_ROWS, PURGED_FRAMES, Tallies, tally
from consumers.recorder.purge import purge
from consumers.records.rows import FrameRow, Window, windows_text
from consumers.settings import Bounds
from schemas.ranges import RangeSet
from tests.clocks import MsClock
from tests.consumers.recorder_rig import BOOT, CAMERA, ON_POSTGRESQL, MakeRig, Rig, verdict

START_MS = 500_000 * HOUR_MS
KEEP_ALL = Bounds(database_age_s=1e9)

pytestmark = ON_POSTGRESQL


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MsClock:
    """Set the recorder's clock, and a length of one hour for all spans. Return the clock."""
    clock = MsClock(START_MS)
    monkeypatch.setattr(time, "time_ns", lambda: clock() * 10**6)
    monkeypatch.setattr(spans, "LARGE", 1)
    return clock


def record_hours(rig: Rig, clock: MsClock, count: int, each: int = 10) -> None:
    """Record `each` frames in each of `count` hours."""
    for hour in range(count):
        clock.now_ms = START_MS + hour * HOUR_MS + 1
        rig.verdicts(verdict(n) for n in range(hour * each, (hour + 1) * each))


def partitions(rig: Rig) -> dict[str, int]:
    """Return the number of rows of each partition."""
    with rig.engine.begin() as connection:
        held = [partition(span.from_ms) for span in spans_held(connection)]
    found = {}
    with rig.engine.begin() as connection:
        for name in held:
            found[name] = connection.scalar(text(f"SELECT count(*) FROM {name}")) or 0
    return found


def test_an_expired_hour_is_dropped_as_a_whole_and_its_frames_stay_recorded(rig: Rig, clock: MsClock) -> None:
    record_hours(rig, clock, 4)
    assert list(partitions(rig).values()) == [10, 10, 10, 10]
    # The first hour is older than two hours as a whole, the second in part.
    assert purge(rig.store, Bounds(database_age_s=7_200))
    assert not purge(rig.store, Bounds(database_age_s=7_200))
    assert list(partitions(rig)) == [partition(START_MS + hour * HOUR_MS) for hour in (1, 2, 3)]
    assert rig.verdicts(verdict(n) for n in range(12)).duplicates == 12
    with rig.records() as records:
        assert records.recorded(CAMERA, BOOT) == records.recorded_by_boot()[CAMERA, BOOT] == RangeSet([(0, 39)])
    with rig.engine.begin() as connection:
        assert tally(connection, FRAME_ROWS) == rig.count("frames") == 30
        assert tally(connection, FRAME_BYTES) == sum(span.bytes for span in spans_held(connection)) > 0
        assert tally(connection, PURGED_FRAMES) == 10


def test_a_purge_by_bytes_drops_the_oldest_hours_and_the_oldest_rows_of_the_last_one(rig: Rig, clock: MsClock) -> None:
    record_hours(rig, clock, 3)
    each = rig.store.bytes_held()["frames"] // 30
    purge(rig.store, KEEP_ALL.model_copy(update={"database_bytes": 2**16}))
    assert rig.count("frames") == 30
    small = KEEP_ALL.model_copy(update={"database_bytes": 25 * each})
    while purge(rig.store, small):
        pass
    assert list(partitions(rig).values()) == [10, 10]
    small = KEEP_ALL.model_copy(update={"database_bytes": 4 * each, "purge_rows": 1})
    while purge(rig.store, small):
        pass
    assert list(partitions(rig).values()) == [4]
    with rig.engine.begin() as connection:
        assert (connection.scalar(text("SELECT min(seq) FROM frames")) or 0) >= 20


def test_frames_recorded_while_the_clock_was_ahead_are_purged_before_those_of_the_present(
    rig: Rig, clock: MsClock
) -> None:
    clock.now_ms = START_MS + 10_000 * HOUR_MS
    rig.verdicts(verdict(n) for n in range(5))
    clock.now_ms = START_MS
    rig.verdicts(verdict(n) for n in range(5, 15))
    small = KEEP_ALL.model_copy(update={"database_rows": 12})
    while purge(rig.store, small):
        pass
    assert partitions(rig) == {partition(START_MS): 10}
    small = KEEP_ALL.model_copy(update={"database_rows": 8, "purge_rows": 1})
    while purge(rig.store, small):
        pass
    assert partitions(rig) == {partition(START_MS): 8}


def test_a_purge_of_rows_frees_the_bytes_of_all_their_texts(rig: Rig, clock: MsClock) -> None:
    windows = windows_text([Window(0, 0, 16, 16, 0.5)] * 3)
    row = FrameRow(CAMERA, BOOT, 0, 0, 0, START_MS, 0, "stop", 0.5, "model", "policy", 0, 0, 0, 0, 0, False, 0, 0, 0,
                    0, 0.0, 0.0, False, "signs", "stop 50 %", windows=windows)  # fmt: skip
    written = FramesByTime(rig.engine, Tallies(rig.engine))
    written.make_room(START_MS)
    with rig.engine.begin() as connection:
        written.count(connection, written.record(connection, {(CAMERA, BOOT, 0): row}, Counter(), START_MS))
        assert tally(connection, FRAME_BYTES) > 0
        assert written.purge(connection, Excess(0, 1, 0), 10) == 1
        assert [span.bytes for span in spans_held(connection)] == [0]
        assert tally(connection, FRAME_BYTES) == 0


def test_a_long_read_delays_the_drop_of_a_partition_but_no_recording(
    rig: Rig, clock: MsClock, make_rig: MakeRig
) -> None:
    record_hours(rig, clock, 3)
    other = make_rig()
    with other.engine.begin() as reading:
        reading.execute(text("SELECT count(*) FROM frames"))
        began = time.monotonic()
        assert not purge(rig.store, Bounds(database_age_s=3_600))
        assert time.monotonic() - began < 25, "writers wait while the drop waits"
        rig.verdicts([verdict(30)])
        assert len(partitions(rig)) == 3
    assert purge(rig.store, Bounds(database_age_s=3_600))
    assert len(partitions(rig)) == 2


def test_a_partition_that_another_program_has_dropped_is_created_again(rig: Rig, clock: MsClock) -> None:
    record_hours(rig, clock, 1)
    with rig.engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {partition(START_MS)}"))
        connection.execute(text("DELETE FROM spans"))
    with pytest.raises(Exception, match="does not exist") as raised:
        rig.verdicts([verdict(10)])
    poison = rig.engine.dialect.loaded_dbapi.IntegrityError, rig.engine.dialect.loaded_dbapi.DataError
    assert not isinstance(raised.value, poison), "these errors would make dead letters instead of a retry"
    assert len(rig.verdicts([verdict(10)]).rows) == 1


def test_two_recorders_of_one_boot_record_each_frame_once(make_rig: MakeRig, clock: MsClock) -> None:
    """Record concurrently, as while a camera's verdicts move from one partition of Kafka to another."""
    rigs = [make_rig(group="g") for _ in range(2)]
    topics = rigs[0].settings.verdicts_topic
    written: list[int] = []

    def record(number: int) -> None:
        rig = rigs[number]
        for start in range(0, 200, 10):
            numbers = range(start, start + 20) if number else range(start, start + 10)
            batch = rig.verdict_records([verdict(n) for n in numbers])
            for position, each in enumerate(batch):
                each.partition = number
                each.offset = rig.offsets.get((topics, number), 0) + position
            written.extend(row.seq for row in rig.feed(batch).rows)

    threads = [threading.Thread(target=record, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(written) == list(range(210))
    with rigs[0].records() as records:
        assert records.duplicates() == 20 * 30 - 210
