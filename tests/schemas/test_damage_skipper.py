"""Reading past damage, against a log whose every offset a test decides on."""

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


class Record(NamedTuple):
    offset: int


class Log:
    """A consumer of partitions whose damaged offsets raise and whose hidden ones give nothing."""

    def __init__(self, end: int, damaged: Set[int] = frozenset(), hidden: Set[int] = frozenset()) -> None:
        self.end = end
        self.damaged = damaged
        self.hidden = hidden
        self.error: Exception = CorruptRecordException()
        self.missing: set[int] = set()
        self.silent: set[int] = set()
        self.answers = 0
        self.at: dict[str, int] = {}
        self.away: Exception | None = None
        self.looks = 0
        self.furthest = 0
        """The last offset that was looked for."""

    async def position(self, partition: str) -> int:
        return self.at.get(partition, 0)

    def seek(self, partition: str, offset: int) -> None:
        self.furthest = max(self.furthest, offset)
        self.at[partition] = offset

    def last_poll_timestamp(self, partition: str) -> int:
        return self.answers

    async def end_offsets(self, partitions: list[str]) -> dict[str, int]:
        self.looks += 1
        if self.away is not None:
            raise self.away
        return dict.fromkeys(partitions, self.end)

    async def getmany(self, partition: str, *, timeout_ms: int, max_records: int) -> dict[str, list[Record]]:
        assert max_records == 1
        assert 0 < timeout_ms <= 1000
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


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(damage, "time", made)
    return made


def offsets(found: dict[str, list[Record]]) -> dict[str, list[int]]:
    return {partition: [record.offset for record in records] for partition, records in found.items()}


def is_careful(skipper: DamageSkipper) -> bool:
    return skipper.is_careful


@pytest.mark.parametrize("error", [CorruptRecordException(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")])
async def test_damaged_records_are_passed_over_one_by_one_and_counted_and_the_others_come(
    clock: Clock, error: Exception
) -> None:
    log, skipper = Log(8, damaged={2, 3, 6}), DamageSkipper()
    log.error = error
    assert not is_careful(skipper)
    found, passed = await skipper.getmany(log, ["a", "b"], 100)
    assert offsets(found) == {"a": [0, 1, 4, 5, 7], "b": [0, 1, 4, 5, 7]}
    assert passed == 6
    assert is_careful(skipper)
    clock.now_s += CAREFUL_S - 0.1
    assert is_careful(skipper)
    clock.now_s += 0.1
    assert not is_careful(skipper)


async def test_no_more_records_are_taken_than_were_asked_for(clock: Clock) -> None:
    log, skipper = Log(8), DamageSkipper()
    assert await skipper.getmany(log, ["a", "b"], 3) == ({"a": [Record(0), Record(1), Record(2)]}, 0)
    assert offsets((await skipper.getmany(log, ["a", "b"], 7))[0]) == {"a": [3, 4, 5, 6, 7], "b": [0, 1]}
    assert not is_careful(skipper)
    skipper.note_damage()
    assert is_careful(skipper)


async def stalled(log: Log, clock: Clock, partitions: list[str]) -> list[int]:
    """What is passed over at each look, from when a reader has come as far as it can."""
    skipper, passed = DamageSkipper(), []
    for _ in range(int(STALL_S / STALL_CHECK_S) + 1):
        passed.append(await skipper.skip_stalls(log, partitions))
        clock.now_s += STALL_CHECK_S
    return passed


@pytest.mark.parametrize(
    ("until", "end"), [(11, 60), (13, 60), (16, 60), (18, 60), (19, 60), (25, 60), (14, 15), (11, 12)]
)
async def test_a_partition_that_stands_still_goes_on_at_the_first_record_that_is_given(
    clock: Clock, until: int, end: int
) -> None:
    log = Log(end, hidden=set(range(10, until)))
    log.at["a"] = 10
    assert await stalled(log, clock, ["a"]) == [0, 0, 0, 0, until - 10]
    assert log.at["a"] == until


@pytest.mark.parametrize("error", [CorruptRecordException(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")])
async def test_a_damaged_record_behind_a_stall_is_there_and_a_missing_one_is_not(
    clock: Clock, error: Exception
) -> None:
    log = Log(60, hidden={10, 11}, damaged={12})
    log.error = error
    log.at["a"] = 10
    assert await stalled(log, clock, ["a"]) == [0, 0, 0, 0, 2]
    assert log.at["a"] == 12
    log = Log(60, hidden={10})
    log.missing = {11, 12}
    log.at["a"] = 10
    assert await stalled(log, clock, ["a"]) == [0, 0, 0, 0, 3]


@pytest.mark.parametrize(
    ("hidden", "silent", "away"),
    [
        (range(10, 60), (), None),  # nothing behind is given
        ((), (), None),  # a slow reader
        ((), (10,), None),  # Kafka does not answer for it, though it gives what lies behind
        ((), range(10, 60), None),
        ((10,), (), ConnectionError("away")),
    ],
)
async def test_nothing_is_passed_over_unless_kafka_answers_for_it_and_gives_a_record_behind(
    clock: Clock, hidden: Iterable[int], silent: Iterable[int], away: Exception | None
) -> None:
    log = Log(60, hidden=set(hidden))
    log.silent, log.away = set(silent), away
    log.at["a"] = 10
    assert await stalled(log, clock, ["a"]) == [0] * 5
    assert log.at["a"] == 10


@pytest.mark.parametrize("end", range(11, 60))
async def test_nothing_is_looked_for_beyond_the_end(clock: Clock, end: int) -> None:
    """Kafka refuses such an offset, and the reader would begin somewhere else."""
    log = Log(end, hidden=set(range(10, end)))
    log.at["a"] = 10
    assert await stalled(log, clock, ["a"]) == [0] * 5
    assert log.furthest < end
    assert log.at["a"] == 10


async def test_no_more_is_passed_over_than_the_most(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damage, "_FURTHEST", 4)
    for until, passed in ((14, 4), (15, 0)):
        log = Log(60, hidden=set(range(10, until)))
        log.at["a"] = 10
        assert (await stalled(log, clock, ["a"]))[-1] == passed


async def test_partitions_stall_apart_and_those_at_their_end_or_on_their_way_do_not(clock: Clock) -> None:
    log = Log(60, hidden={10, 30})
    log.at = {"still": 10, "other": 30, "end": 60, "moving": 40}
    skipper, passed = DamageSkipper(), []
    for _ in range(6):
        passed.append(await skipper.skip_stalls(log, ["still", "other", "end", "moving"]))
        log.at["moving"] += 1
        clock.now_s += STALL_CHECK_S
    assert passed == [0, 0, 0, 0, 2, 0]
    assert log.at == {"still": 11, "other": 31, "end": 60, "moving": 46}


@pytest.mark.parametrize("others", [["b"], []])
async def test_a_partition_that_was_not_read_for_long_does_not_stall(clock: Clock, others: list[str]) -> None:
    log, skipper = Log(60), DamageSkipper()
    log.at["a"] = 10
    await skipper.skip_stalls(log, ["a"])
    for _ in range(int(STALL_S / STALL_CHECK_S)):
        clock.now_s += STALL_CHECK_S
        await skipper.skip_stalls(log, others)  # the processor has enough of `a`
    await skipper.skip_stalls(log, ["a"])
    clock.now_s += STALL_CHECK_S
    await skipper.skip_stalls(log, ["a"])
    assert log.furthest == 0


async def test_a_partition_of_which_kafka_answers_nothing_does_not_keep_another_from_its_pass(clock: Clock) -> None:
    log, skipper, passed = Log(60, hidden={30}), DamageSkipper(), []
    log.silent = {10}
    log.at = {"silent": 10, "still": 29}
    for _ in range(int(2 * STALL_S / STALL_CHECK_S)):
        passed.append(await skipper.skip_stalls(log, ["silent", "still"]))
        log.at["still"] = max(30, log.at["still"])
        clock.now_s += STALL_CHECK_S
    assert sum(passed) == 1
    assert log.at == {"silent": 10, "still": 31}


async def test_a_stall_is_tried_again_only_after_as_long(clock: Clock) -> None:
    log = Log(60, hidden=set(range(10, 60)))
    log.at["a"] = 10
    skipper = DamageSkipper()
    tries = []
    first = skipper._first

    async def noted(consumer: Log, partition: str, offset: int) -> int | None:
        tries.append(clock.now_s)
        return await first(consumer, partition, offset)

    skipper._first = noted  # type: ignore[method-assign]
    for _ in range(11):
        await skipper.skip_stalls(log, ["a"])
        clock.now_s += STALL_CHECK_S
    assert sorted(set(tries)) == [100.0 + STALL_S, 100.0 + 2 * STALL_S]


async def test_partitions_are_looked_at_once_in_a_while(clock: Clock) -> None:
    log, skipper = Log(60), DamageSkipper()
    assert await skipper.skip_stalls(log, []) == 0
    await skipper.skip_stalls(log, ["a"])
    clock.now_s += STALL_CHECK_S - 0.1
    await skipper.skip_stalls(log, ["a"])
    assert log.looks == 1
    clock.now_s += 0.1
    await skipper.skip_stalls(log, ["a"])
    assert log.looks == 2


def test_a_full_disk_and_a_full_share_of_it_are_told_from_other_errors() -> None:
    assert [is_full(error) for error in (OSError(28, "full"), OSError(122, "quota"), OSError(2, "none"))] == [
        True,
        True,
        False,
    ]
    full = SimpleNamespace(errno=28)
    assert not is_full(full)  # type: ignore[arg-type]  # only what the system raised counts


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_its_nearest_parent(tmp_path: Path) -> None:
    assert 0 < free_bytes(tmp_path / "not" / "yet") == pytest.approx(free_bytes(tmp_path), rel=0.2)
