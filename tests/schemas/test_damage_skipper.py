"""Reading past damage in a log whose every offset the test controls."""

from __future__ import annotations

from collections.abc import Iterable, Set
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from aiokafka.errors import CorruptRecordException

from schemas.runtime.disk import free_bytes, is_full
from schemas.transport.kafka import damage
from schemas.transport.kafka.damage import CAREFUL_S, STALL_CHECK_S, STALL_S, DamageSkipper
from tests.clocks import Clock


class Record(NamedTuple):
    """A record that has only an offset."""

    offset: int


class Log:
    """A consumer whose damaged offsets raise an error and whose hidden ones return nothing."""

    def __init__(self, end: int, damaged: Set[int] = frozenset(), hidden: Set[int] = frozenset()) -> None:
        self.end = end
        self.damaged = damaged
        self.hidden = hidden
        self.error: Exception = CorruptRecordException()
        self.missing: set[int] = set()
        self.silent: set[int] = set()
        self.answers = 0
        self.at: dict[str, int] = {}
        self.end_offsets_error: Exception | None = None
        self.end_requests = 0
        self.furthest = 0
        """The highest offset that was sought."""
        self.rebalances_at: int | None = None
        """The number of the read or position during which the group rebalances."""
        self.requests = 0
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=object()))

    def _count_request(self) -> None:
        """Assign the partitions again, at their committed offset 1, if it is time."""
        if self.requests == self.rebalances_at:
            self._subscription.subscription.assignment = object()
            self.at = dict.fromkeys(self.at, 1)
        self.requests += 1

    async def position(self, partition: str) -> int:
        self._count_request()
        return self.at.get(partition, 0)

    def seek(self, partition: str, offset: int) -> None:
        self.furthest = max(self.furthest, offset)
        self.at[partition] = offset

    def last_poll_timestamp(self, partition: str) -> int:
        return self.answers

    async def end_offsets(self, partitions: list[str]) -> dict[str, int]:
        self.end_requests += 1
        if self.end_offsets_error is not None:
            raise self.end_offsets_error
        return dict.fromkeys(partitions, self.end)

    async def getmany(self, partition: str, *, timeout_ms: int, max_records: int) -> dict[str, list[Record]]:
        assert max_records == 1
        assert 0 < timeout_ms <= 1000
        self._count_request()
        offset = self.at.get(partition, 0)
        if offset in self.silent:
            return {}
        self.answers += 1
        while offset in self.missing:
            offset += 1
        if offset in self.damaged:
            raise self.error
        if offset in self.hidden or offset >= self.end:
            return {}
        self.at[partition] = offset + 1
        return {partition: [Record(offset)]}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(100.0)
    monkeypatch.setattr(damage, "time", SimpleNamespace(monotonic=made))
    return made


def offsets(found: dict[str, list[Record]]) -> dict[str, list[int]]:
    return {partition: [record.offset for record in records] for partition, records in found.items()}


def is_careful(skipper: DamageSkipper) -> bool:
    return skipper.is_careful


def asked_offsets(skipper: DamageSkipper, clock: Clock) -> list[tuple[float, int]]:
    """Return a list that receives the time and the offset of each request of the skipper."""
    asked: list[tuple[float, int]] = []
    first = skipper._first

    async def noted(consumer: Log, partition: str, offset: int) -> int | None:
        asked.append((clock.now_s, offset))
        return await first(consumer, partition, offset)

    skipper._first = noted  # type: ignore[method-assign]
    return asked


async def test_a_long_gap_is_passed_with_few_requests_because_no_partition_is_read_meanwhile(clock: Clock) -> None:
    log = Log(600, hidden=set(range(10, 410)))
    log.at["a"] = 10
    skipper = DamageSkipper()
    asked = asked_offsets(skipper, clock)
    for _ in range(int(STALL_S / STALL_CHECK_S) + 1):
        await skipper.skip_stalls(log, ["a"])
        clock.now_s += STALL_CHECK_S
    assert log.at["a"] == 410
    assert len(asked) <= 20  # doubled to 512, then halved from 256


@pytest.mark.parametrize("error", [CorruptRecordException(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")])
async def test_damaged_records_are_skipped_one_by_one_and_counted_and_the_others_are_returned(
    clock: Clock, error: Exception
) -> None:
    log, skipper = Log(8, damaged={2, 3, 6}), DamageSkipper()
    log.error = error
    assert not is_careful(skipper)
    found, skipped = await skipper.getmany(log, ["a", "b"], 100)
    assert offsets(found) == {"a": [0, 1, 4, 5, 7], "b": [0, 1, 4, 5, 7]}
    assert skipped == 6
    assert is_careful(skipper)
    clock.now_s += CAREFUL_S - 0.1
    assert is_careful(skipper)
    clock.now_s += 0.1
    assert not is_careful(skipper)


async def test_records_from_before_a_rebalance_are_dropped_and_read_again(clock: Clock) -> None:
    log, skipper = Log(3), DamageSkipper()
    log.at, log.rebalances_at = {"a": 0, "b": 0}, 4  # the first read of `b`
    assert offsets((await skipper.getmany(log, ["a", "b"], 100))[0]) == {"b": [1, 2]}
    assert offsets((await skipper.getmany(log, ["a", "b"], 100))[0]) == {"a": [1, 2]}


async def test_damage_from_before_a_rebalance_skips_no_record_of_the_new_assignment(clock: Clock) -> None:
    log, skipper = Log(4, damaged={2}), DamageSkipper()
    log.at, log.rebalances_at = {"a": 2}, 1  # the request for the position of the damage
    found, skipped = await skipper.getmany(log, ["a"], 100)
    assert (offsets(found), skipped) == ({"a": [1, 3]}, 1)


async def test_at_most_the_requested_number_of_records_is_returned(clock: Clock) -> None:
    log, skipper = Log(8), DamageSkipper()
    assert await skipper.getmany(log, ["a", "b"], 3) == ({"a": [Record(0), Record(1), Record(2)]}, 0)
    assert offsets((await skipper.getmany(log, ["a", "b"], 7))[0]) == {"a": [3, 4, 5, 6, 7], "b": [0, 1]}
    assert not is_careful(skipper)
    skipper.note_damage()
    assert is_careful(skipper)


async def skipped_at_stalls(log: Log, clock: Clock, partitions: list[str]) -> list[int]:
    """Return the number of records that each check skips, after the reader has reached its last readable record."""
    skipper, skipped = DamageSkipper(), []
    for _ in range(int(STALL_S / STALL_CHECK_S) + 1):
        skipped.append(await skipper.skip_stalls(log, partitions))
        clock.now_s += STALL_CHECK_S
    return skipped


@pytest.mark.parametrize(
    ("first_readable", "end"), [(11, 60), (13, 60), (16, 60), (18, 60), (19, 60), (25, 60), (14, 15), (11, 12)]
)
async def test_a_stalled_partition_continues_at_the_next_readable_record(
    clock: Clock, first_readable: int, end: int
) -> None:
    log = Log(end, hidden=set(range(10, first_readable)))
    log.at["a"] = 10
    assert await skipped_at_stalls(log, clock, ["a"]) == [0, 0, 0, 0, first_readable - 10]
    assert log.at["a"] == first_readable


@pytest.mark.parametrize("error", [CorruptRecordException(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")])
async def test_a_damaged_record_after_a_stall_is_found_and_a_missing_one_is_skipped(
    clock: Clock, error: Exception
) -> None:
    log = Log(60, hidden={10, 11}, damaged={12})
    log.error = error
    log.at["a"] = 10
    assert await skipped_at_stalls(log, clock, ["a"]) == [0, 0, 0, 0, 2]
    assert log.at["a"] == 12
    log = Log(60, hidden={10})
    log.missing = {11, 12}
    log.at["a"] = 10
    assert await skipped_at_stalls(log, clock, ["a"]) == [0, 0, 0, 0, 3]


@pytest.mark.parametrize(
    ("hidden", "silent", "failure"),
    [
        (range(10, 60), (), None),  # no later record is readable
        ((), (), None),  # a slow reader
        ((), (10,), None),  # Kafka does not answer for this offset, though it returns later records
        ((), range(10, 60), None),
        ((10,), (), ConnectionError("away")),
    ],
)
async def test_nothing_is_skipped_unless_kafka_answers_for_the_offset_and_returns_a_later_record(
    clock: Clock, hidden: Iterable[int], silent: Iterable[int], failure: Exception | None
) -> None:
    log = Log(60, hidden=set(hidden))
    log.silent, log.end_offsets_error = set(silent), failure
    log.at["a"] = 10
    assert await skipped_at_stalls(log, clock, ["a"]) == [0] * 5
    assert log.at["a"] == 10


@pytest.mark.parametrize("request_number", range(5, 10))
async def test_a_rebalance_while_a_stall_is_examined_keeps_the_positions_of_the_new_assignment(
    clock: Clock, request_number: int
) -> None:
    log = Log(60, hidden={10, 11})
    log.at, log.rebalances_at = {"a": 10}, request_number
    assert await skipped_at_stalls(log, clock, ["a"]) == [0] * 5
    assert log.requests == request_number + 1
    assert log.at["a"] == 1


@pytest.mark.parametrize("end", range(11, 60))
async def test_no_offset_beyond_the_end_is_sought(clock: Clock, end: int) -> None:
    # Kafka rejects such an offset, and the reader would start somewhere else.
    log = Log(end, hidden=set(range(10, end)))
    log.at["a"] = 10
    assert await skipped_at_stalls(log, clock, ["a"]) == [0] * 5
    assert log.furthest < end
    assert log.at["a"] == 10


async def test_at_most_the_limit_of_records_is_skipped(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damage, "_FURTHEST", 4)
    for first_readable, skipped in ((14, 4), (15, 0)):
        log = Log(60, hidden=set(range(10, first_readable)))
        log.at["a"] = 10
        assert (await skipped_at_stalls(log, clock, ["a"]))[-1] == skipped


async def test_partitions_stall_independently_and_not_at_their_end_or_while_they_advance(clock: Clock) -> None:
    log = Log(60, hidden={10, 30})
    log.at = {"still": 10, "other": 30, "end": 60, "moving": 40}
    skipper, skipped = DamageSkipper(), []
    for _ in range(6):
        skipped.append(await skipper.skip_stalls(log, ["still", "other", "end", "moving"]))
        log.at["moving"] += 1
        clock.now_s += STALL_CHECK_S
    assert skipped == [0, 0, 0, 0, 2, 0]
    assert log.at == {"still": 11, "other": 31, "end": 60, "moving": 46}


@pytest.mark.parametrize("others", [["b"], []])
async def test_a_partition_without_reads_for_long_is_not_stalled(clock: Clock, others: list[str]) -> None:
    log, skipper = Log(60), DamageSkipper()
    log.at["a"] = 10
    await skipper.skip_stalls(log, ["a"])
    for _ in range(int(STALL_S / STALL_CHECK_S)):
        clock.now_s += STALL_CHECK_S
        await skipper.skip_stalls(log, others)  # the processor has paused `a`
    await skipper.skip_stalls(log, ["a"])
    clock.now_s += STALL_CHECK_S
    await skipper.skip_stalls(log, ["a"])
    assert log.furthest == 0


async def test_a_silent_partition_does_not_stop_another_from_skipping(clock: Clock) -> None:
    log, skipper, skipped = Log(60, hidden={30}), DamageSkipper(), []
    log.silent = {10}
    log.at = {"silent": 10, "still": 29}
    for _ in range(int(2 * STALL_S / STALL_CHECK_S)):
        skipped.append(await skipper.skip_stalls(log, ["silent", "still"]))
        log.at["still"] = max(30, log.at["still"])
        clock.now_s += STALL_CHECK_S
    assert sum(skipped) == 1
    assert log.at == {"silent": 10, "still": 31}


async def test_a_stall_is_retried_only_after_the_same_time(clock: Clock) -> None:
    log = Log(60, hidden=set(range(10, 60)))
    log.at["a"] = 10
    skipper = DamageSkipper()
    asked = asked_offsets(skipper, clock)
    for _ in range(11):
        await skipper.skip_stalls(log, ["a"])
        clock.now_s += STALL_CHECK_S
    assert sorted({at_s for at_s, _ in asked}) == [100.0 + STALL_S, 100.0 + 2 * STALL_S]


async def test_partitions_are_checked_at_a_bounded_rate(clock: Clock) -> None:
    log, skipper = Log(60), DamageSkipper()
    assert await skipper.skip_stalls(log, []) == 0
    await skipper.skip_stalls(log, ["a"])
    clock.now_s += STALL_CHECK_S - 0.1
    await skipper.skip_stalls(log, ["a"])
    assert log.end_requests == 1
    clock.now_s += 0.1
    await skipper.skip_stalls(log, ["a"])
    assert log.end_requests == 2


def test_a_full_disk_and_an_exhausted_quota_differ_from_other_errors() -> None:
    assert [is_full(error) for error in (OSError(28, "full"), OSError(122, "quota"), OSError(2, "none"))] == [
        True,
        True,
        False,
    ]
    full = SimpleNamespace(errno=28)
    assert not is_full(full)  # type: ignore[arg-type]  # only an OSError counts


def test_the_free_space_of_a_missing_folder_is_that_of_its_nearest_parent(tmp_path: Path) -> None:
    assert 0 < free_bytes(tmp_path / "not" / "yet") == pytest.approx(free_bytes(tmp_path), rel=0.2)
