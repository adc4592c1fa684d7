"""Sums by minute and by hour: each frame counts once, in the minute of its capture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select
from sqlalchemy.exc import OperationalError

from benchmarks.harness.postgresql import PostgreSQL
from consumers.console.data import rollup
from consumers.console.data.history import Outage, columns, history, outages
from consumers.console.data.rollup import DAY_MS, HOUR_MS, MINUTE_MS, Rollup, by_hour
from consumers.console.data.store import Store
from consumers.database.console_store import camera_hours, camera_minutes
from consumers.database.console_store import metadata as own
from consumers.database.engine import open_engine
from consumers.database.spans import ensure_span
from consumers.database.tables import frames, metadata
from consumers.records.batch import frame_row
from schemas.pointillist_pb2 import Verdict
from tests.consumers.recorder_rig import BOOT, CAMERA, verdict

NOW_MS = 1_800_000_000_000 - 1_800_000_000_000 % HOUR_MS


class SummedFrames:
    """A database with a recorder's frames, and a console's sums of them."""

    def __init__(self, folder: Path, server: str = "") -> None:
        """Store both in SQLite files in `folder`, or in the PostgreSQL database at the URL `server`."""
        url = server or f"sqlite:///{folder}/records.sqlite"
        self.recorded = open_engine(url, writes=True)
        metadata.create_all(self.recorded)
        self.store = Store(server or f"sqlite:///{folder}/console.sqlite")
        self.store.prepare()
        self.rollup = Rollup(open_engine(url, writes=False), self.store.engine)

    def record(self, verdicts: list[Verdict], recorded_ms: int, camera: str = CAMERA) -> None:
        rows = [frame_row((camera, BOOT, made.seq), made, recorded_ms)._asdict() for made in verdicts]
        with self.recorded.begin() as connection:
            if connection.dialect.name == "postgresql":
                ensure_span(connection, recorded_ms)
            connection.execute(insert(frames), rows)

    def roll_up(self, now_ms: int = NOW_MS + DAY_MS) -> None:
        while self.rollup.step(now_ms):
            pass

    def rows(self, table: object = camera_minutes) -> list[dict[str, object]]:
        with self.store.engine.begin() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]  # type: ignore[call-overload]


@pytest.fixture
def summed(tmp_path: Path) -> Iterator[SummedFrames]:
    summed = SummedFrames(tmp_path)
    yield summed
    summed.store.close()
    summed.recorded.dispose()
    summed.rollup.recorded.dispose()


def test_a_minute_contains_the_sums_of_its_frames(summed: SummedFrames) -> None:
    verdicts = [
        verdict(0, captured_ms=NOW_MS + 100, confidence=0.5),
        verdict(1, captured_ms=NOW_MS + 200, confidence=0.7, flagged=True),
        verdict(2, captured_ms=NOW_MS + 300, confidence=0.9, flagged=False),
    ]
    summed.record(verdicts, NOW_MS + 1_000)
    summed.roll_up()
    (minute,) = summed.rows()
    assert (minute["camera"], minute["begin_ms"], minute["frames"]) == (CAMERA, NOW_MS, 3)
    assert minute["frame_bytes"] == 3 * 1768
    assert minute["raw_bytes"] == 3 * 32 * 24 * 3
    assert (minute["late_ms"], minute["slowest_ms"]) == (900 + 800 + 700, 900)
    assert (minute["checked"], minute["flagged"]) == (2, 1)
    assert minute["confidence"] == pytest.approx(2.1)
    assert minute["entropy_bits"] == pytest.approx(1.5 + 2**-10)
    assert minute["least_entropy_bits"] == pytest.approx(2**-10)


@pytest.mark.parametrize("captured_ms", [0, NOW_MS - 40 * DAY_MS, NOW_MS + 5 * DAY_MS, 2**50])
def test_a_camera_with_a_wrong_clock_fills_the_minute_of_recording(summed: SummedFrames, captured_ms: int) -> None:
    message = verdict(0)
    message.captured_ms = captured_ms
    summed.record([message], NOW_MS + 2 * MINUTE_MS)
    summed.roll_up()
    assert [(row["begin_ms"], row["late_ms"]) for row in summed.rows()] == [(NOW_MS + 2 * MINUTE_MS, 0)]


def test_frames_are_not_summed_before_they_have_settled(summed: SummedFrames) -> None:
    summed.record([verdict(0, captured_ms=NOW_MS)], NOW_MS)
    assert not summed.rollup.step(NOW_MS + 1_000)
    assert summed.rows() == []
    summed.roll_up(NOW_MS + 20_000)
    assert len(summed.rows()) == 1


def test_a_kill_between_reading_and_writing_counts_nothing_twice(
    summed: SummedFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    summed.record([verdict(n, captured_ms=NOW_MS + n) for n in range(5)], NOW_MS + 10)

    def killed(*_: object) -> None:
        raise OperationalError("", {}, Exception("killed"))

    with monkeypatch.context() as patched:
        patched.setattr(rollup, "set_mark", killed)
        with pytest.raises(OperationalError):
            summed.rollup.step(NOW_MS + DAY_MS)
    summed.roll_up()
    assert [row["frames"] for row in summed.rows()] == [5]


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3 * HOUR_MS), st.integers(0, 2)), min_size=1, max_size=40),
    st.lists(st.integers(1, 4 * HOUR_MS), max_size=6),
)
def test_each_frame_counts_once_for_any_sequence_of_steps(
    tmp_path_factory: pytest.TempPathFactory, moments: list[tuple[int, int]], cuts: list[int]
) -> None:
    summed = SummedFrames(tmp_path_factory.mktemp("sums"))
    try:
        for seq, (at_ms, camera) in enumerate(moments):
            recorded_ms = NOW_MS + at_ms + 50 * seq
            summed.record([verdict(seq, captured_ms=NOW_MS + at_ms)], recorded_ms, f"lab/{camera}")
        for cut in sorted(cuts):
            summed.roll_up(NOW_MS + cut)
        summed.roll_up()
        minutes, hours = summed.rows(), summed.rows(camera_hours)
        expected: dict[tuple[str, int], int] = {}
        for at_ms, camera in moments:
            key = f"lab/{camera}", NOW_MS + at_ms - at_ms % MINUTE_MS
            expected[key] = expected.get(key, 0) + 1
        assert {(row["camera"], row["begin_ms"]): row["frames"] for row in minutes} == expected
        expected_hours = {(row["camera"], row["begin_ms"]): row["frames"] for row in by_hour(minutes)}
        assert {(row["camera"], row["begin_ms"]): row["frames"] for row in hours} == expected_hours
    finally:
        summed.store.close()
        summed.recorded.dispose()
        summed.rollup.recorded.dispose()


def test_the_highest_evidence_of_a_minute_is_stored(summed: SummedFrames) -> None:
    summed.rollup.note({CAMERA: 0.7})
    summed.rollup.note({CAMERA: 0.2})
    summed.record([verdict(0, captured_ms=NOW_MS)], NOW_MS)
    summed.roll_up()
    assert [row["evidence"] for row in summed.rows()] == [0.7]


def test_a_day_is_drawn_by_the_minute_and_a_month_by_the_hour(summed: SummedFrames) -> None:
    summed.record([verdict(n, captured_ms=NOW_MS + n * MINUTE_MS) for n in range(3)], NOW_MS + 3 * MINUTE_MS)
    summed.roll_up()
    day = history(summed.store.engine, CAMERA, NOW_MS - DAY_MS, NOW_MS + HOUR_MS, 10.0, sends=True)
    month = history(summed.store.engine, CAMERA, NOW_MS - 31 * DAY_MS, NOW_MS + HOUR_MS, 10.0, sends=True)
    assert (day["step_s"], len(day["columns"]["t"])) == (60, 3)
    assert (month["step_s"], len(month["columns"]["t"])) == (3600, 1)
    assert (day["classes"], day["classes_since_s"]) == ([("stop", 3)], (NOW_MS - DAY_MS) / 1000)


def test_a_minute_or_an_hour_is_drawn_once_it_is_complete(summed: SummedFrames) -> None:
    def rates(since_ms: int, until_ms: int) -> object:
        return history(summed.store.engine, CAMERA, since_ms, until_ms, 10.0, sends=True)["columns"]["rate"]

    for begin, end in ((0, 60), (60, 90)):
        verdicts = [verdict(at, captured_ms=NOW_MS + 1_000 * at) for at in range(begin, end)]
        summed.record(verdicts, NOW_MS + 1_000 * end - 1)
    now_ms = NOW_MS + 105_000
    summed.roll_up(now_ms)
    assert rates(now_ms - 15 * MINUTE_MS, now_ms) == [1.0]
    assert rates(now_ms - 31 * DAY_MS, now_ms) == []
    now_ms = NOW_MS + HOUR_MS + 15_000
    summed.roll_up(now_ms)  # the camera has sent nothing more
    assert rates(now_ms - DAY_MS, now_ms) == [1.0, 0.5]
    assert rates(now_ms - 31 * DAY_MS, now_ms) == [0.025]


def test_verdicts_are_counted_by_whole_hours_in_order_of_frequency(summed: SummedFrames) -> None:
    for at, name in enumerate(("3", "9", "9", "3", "9")):
        summed.record([verdict(at, captured_ms=NOW_MS + at, class_name=name)], NOW_MS + at)
    summed.roll_up()
    since_ms = NOW_MS + 50 * MINUTE_MS
    found = history(summed.store.engine, CAMERA, since_ms, since_ms + 9 * MINUTE_MS, 10.0, sends=True)
    assert (found["classes"], found["classes_since_s"]) == ([("9", 3), ("3", 2)], NOW_MS / 1000)


def test_a_gap_is_drawn_and_listed_as_an_outage(summed: SummedFrames) -> None:
    for at in (0, 1, 5):
        summed.record([verdict(at, captured_ms=NOW_MS + at * MINUTE_MS)], NOW_MS + at * MINUTE_MS)
    summed.roll_up()
    drawn = columns(summed.rows(), MINUTE_MS)
    assert [value is None for value in drawn["rate"]] == [False, False, True, False]
    begins_ms = [NOW_MS + at * MINUTE_MS for at in (0, 1, 5)]
    assert outages(None, begins_ms, MINUTE_MS, 10_000, NOW_MS + 6 * MINUTE_MS, NOW_MS + 6 * MINUTE_MS + 9_000) == [
        Outage(NOW_MS + 2 * MINUTE_MS, NOW_MS + 5 * MINUTE_MS)
    ]


@pytest.mark.parametrize("until", [20, 3 * 24 * 60, 20 * 24 * 60])
def test_a_current_outage_is_listed_and_a_slow_camera_has_none_between_its_frames(
    summed: SummedFrames, until: int
) -> None:
    for at in (0, 5, 10):
        summed.record([verdict(at, captured_ms=NOW_MS + at * MINUTE_MS)], NOW_MS + at * MINUTE_MS)
    until_ms = NOW_MS + until * MINUTE_MS
    summed.roll_up(until_ms)
    present = (NOW_MS + 11 * MINUTE_MS, until_ms - 15_000)
    between = [(NOW_MS + at * MINUTE_MS, NOW_MS + (at + 4) * MINUTE_MS) for at in (6, 1)]

    def listed(since_ms: int, patience_s: float, sends: bool = False) -> object:
        return history(summed.store.engine, CAMERA, since_ms, until_ms, patience_s, sends=sends)["outages"]

    assert listed(until_ms - DAY_MS, 10.0, sends=True) == (between if until == 20 else [])
    assert listed(until_ms - DAY_MS, 10.0) == [present, *(between if until == 20 else [])]
    assert listed(until_ms - 31 * DAY_MS, 10.0) == [present]
    assert listed(until_ms - DAY_MS, 750.0) == ([] if until == 20 else [present])
    summed.rollup.purge(until_ms)
    if until > 8 * 24 * 60:  # only the sums of hours are left
        assert listed(until_ms - DAY_MS, 10.0) == [(NOW_MS + HOUR_MS, until_ms - 15_000)]


def test_frames_are_counted_after_the_clock_was_set_back(summed: SummedFrames) -> None:
    summed.roll_up(NOW_MS + HOUR_MS)
    summed.roll_up(NOW_MS)
    for at in (0, 1):
        summed.record([verdict(at, captured_ms=NOW_MS + at * MINUTE_MS)], NOW_MS + at * MINUTE_MS)
    summed.roll_up(NOW_MS + 2 * MINUTE_MS)
    assert [row["frames"] for row in summed.rows()] == [1, 1]


@pytest.mark.parametrize(("range_ms", "back"), [(15 * MINUTE_MS, 125), (7 * DAY_MS, 8 * 24 * 60)])
def test_an_outage_that_began_before_the_range_is_listed(summed: SummedFrames, range_ms: int, back: int) -> None:
    for at in (0, 2, back, back + 1):
        summed.record([verdict(at, captured_ms=NOW_MS + at * MINUTE_MS)], NOW_MS + at * MINUTE_MS)
    until_ms = NOW_MS + (back + 3) * MINUTE_MS
    summed.roll_up(until_ms)
    found = history(summed.store.engine, CAMERA, until_ms - range_ms, until_ms, 100.0, sends=True)
    assert found["outages"] == [(NOW_MS + 3 * MINUTE_MS, NOW_MS + back * MINUTE_MS)]


def test_old_minutes_are_purged_and_their_hours_kept(summed: SummedFrames) -> None:
    summed.record([verdict(0, captured_ms=NOW_MS)], NOW_MS)
    summed.roll_up()
    summed.rollup.purge(NOW_MS + 9 * DAY_MS)
    assert (len(summed.rows()), len(summed.rows(camera_hours))) == (0, 1)


def test_a_purge_deletes_the_oldest_sums_in_steps(summed: SummedFrames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollup, "PURGE_ROWS", 4)
    verdicts = [verdict(n, captured_ms=NOW_MS + n * MINUTE_MS) for n in range(10)]
    summed.record(verdicts, NOW_MS + HOUR_MS)
    summed.roll_up()
    begins_ms = [row["begin_ms"] for row in summed.rows()]
    for more, left in ((True, 6), (True, 2), (False, 1)):
        assert summed.rollup.purge(NOW_MS + 8 * DAY_MS + 9 * MINUTE_MS) is more
        assert [row["begin_ms"] for row in summed.rows()] == begins_ms[-left:]


@pytest.mark.brokers
@pytest.mark.xdist_group("postgresql")
def test_sums_in_postgresql_equal_those_in_sqlite(summed: SummedFrames, postgresql: PostgreSQL, tmp_path: Path) -> None:
    verdicts = [verdict(n, captured_ms=NOW_MS + n * 7_000, flagged=n % 2 == 0) for n in range(20)]
    in_postgresql = SummedFrames(tmp_path, postgresql.url())
    try:
        for each in (summed, in_postgresql):
            for start in (0, 10):
                each.record(verdicts[start : start + 10], NOW_MS + 200_000 + start)
                each.roll_up(NOW_MS + DAY_MS)
        assert in_postgresql.rows() == summed.rows()
        assert in_postgresql.rows(camera_hours) == summed.rows(camera_hours)
        in_postgresql.rollup.purge(NOW_MS + 500 * DAY_MS)
        assert in_postgresql.rows(camera_hours) == []
    finally:
        own.drop_all(in_postgresql.store.engine)
        metadata.drop_all(in_postgresql.recorded)
        in_postgresql.store.close()
        in_postgresql.recorded.dispose()
        in_postgresql.rollup.recorded.dispose()
