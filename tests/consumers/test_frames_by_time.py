"""The frames of a PostgreSQL in partitions: history goes by time, and each frame counts once whatever went."""

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
from tests.consumers.recorder_rig import BOOT, CAMERA, ON_POSTGRESQL, MakeRig, Rig, verdict

START_MS = 500_000 * HOUR_MS
KEEP_ALL = Bounds(database_age_s=1e9)

pytestmark = ON_POSTGRESQL


class Clock:
    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms * 10**6


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The recorder's clock; every span is an hour."""
    made = Clock()
    monkeypatch.setattr(time, "time_ns", made)
    monkeypatch.setattr(spans, "LARGE", 1)
    return made


def hours(rig: Rig, clock: Clock, count: int, each: int = 10) -> None:
    """Frames of this many hours, in order."""
    for hour in range(count):
        clock.now_ms = START_MS + hour * HOUR_MS + 1
        rig.verdicts(verdict(n) for n in range(hour * each, (hour + 1) * each))


def partitions(rig: Rig) -> dict[str, int]:
    """The rows of each."""
    with rig.engine.begin() as connection:
        held = [partition(span.from_ms) for span in spans_held(connection)]
    found = {}
    with rig.engine.begin() as connection:
        for name in held:
            found[name] = connection.scalar(text(f"SELECT count(*) FROM {name}")) or 0
    return found


def test_an_hour_goes_as_a_whole_when_all_of_it_is_too_old_and_its_frames_stay_known(rig: Rig, clock: Clock) -> None:
    hours(rig, clock, 4)
    assert list(partitions(rig).values()) == [10, 10, 10, 10]
    # All of the first hour is older than two hours, and a part of the second.
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


def test_too_many_bytes_take_the_oldest_hours_and_of_the_last_one_its_oldest_rows(rig: Rig, clock: Clock) -> None:
    hours(rig, clock, 3)
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


def test_a_purge_of_rows_frees_the_bytes_of_all_their_texts(rig: Rig, clock: Clock) -> None:
    windows = windows_text([Window(0, 0, 16, 16, 0.5)] * 3)
    made = FrameRow(CAMERA, BOOT, 0, 0, 0, START_MS, 0, "stop", 0.5, "model", "policy", 0, 0, 0, 0, 0, False, 0, 0, 0,
                    0, 0.0, 0.0, False, "signs", "stop 50 %", windows=windows)  # fmt: skip
    written = FramesByTime(rig.engine, Tallies(rig.engine))
    written.make_room(START_MS)
    with rig.engine.begin() as connection:
        written.count(connection, written.record(connection, {(CAMERA, BOOT, 0): made}, Counter(), START_MS))
        assert tally(connection, FRAME_BYTES) > 0
        assert written.purge(connection, Excess(0, 1, 0), 10) == 1
        assert [span.bytes for span in spans_held(connection)] == [0]
        assert tally(connection, FRAME_BYTES) == 0


def test_what_reads_all_of_it_holds_up_a_drop_and_no_recording(rig: Rig, clock: Clock, make_rig: MakeRig) -> None:
    hours(rig, clock, 3)
    other = make_rig()
    with other.engine.begin() as reading:
        reading.execute(text("SELECT count(*) FROM frames"))
        began = time.monotonic()
        assert not purge(rig.store, Bounds(database_age_s=3_600))
        assert time.monotonic() - began < 25, "others wait behind it"
        rig.verdicts([verdict(30)])
        assert len(partitions(rig)) == 3
    assert purge(rig.store, Bounds(database_age_s=3_600))
    assert len(partitions(rig)) == 2


def test_a_partition_that_somebody_dropped_is_made_anew(rig: Rig, clock: Clock) -> None:
    hours(rig, clock, 1)
    with rig.engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {partition(START_MS)}"))
        connection.execute(text("DELETE FROM spans"))
    with pytest.raises(Exception, match="does not exist") as raised:
        rig.verdicts([verdict(10)])
    poison = rig.engine.dialect.loaded_dbapi.IntegrityError, rig.engine.dialect.loaded_dbapi.DataError
    assert not isinstance(raised.value, poison), "it would be refused, not tried again"
    assert len(rig.verdicts([verdict(10)]).rows) == 1


def test_recorders_that_both_come_upon_a_boot_record_each_of_its_frames_once(make_rig: MakeRig, clock: Clock) -> None:
    """As while a camera's verdicts move from one partition of Kafka to another."""
    rigs = [make_rig(group="g") for _ in range(2)]
    topics = rigs[0].settings.verdicts_topic
    written: list[int] = []

    def record(number: int) -> None:
        rig = rigs[number]
        for start in range(0, 200, 10):
            numbers = range(start, start + 20) if number else range(start, start + 10)
            made = rig.verdict_records([verdict(n) for n in numbers])
            for place, each in enumerate(made):
                each.partition = number
                each.offset = rig.offsets.get((topics, number), 0) + place
            written.extend(row.seq for row in rig.feed(made).rows)

    threads = [threading.Thread(target=record, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(written) == list(range(210))
    with rigs[0].records() as records:
        assert records.duplicates() == 20 * 30 - 210
