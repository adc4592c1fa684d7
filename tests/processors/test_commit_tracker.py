"""The member of the consumer group without Kafka: commits, assignments, lag and back-pressure."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError
from prometheus_client import CollectorRegistry

from processors.arrivals import group_member
from processors.arrivals.group_member import GroupMember
from processors.arrivals.job import FrameJob
from processors.arrivals.partitions import PartitionTracker
from processors.arrivals.progress import OffsetRegressionError
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings
from schemas.runtime.health import Health
from tests.waiting import PATIENCE_S


@dataclass
class Record:
    partition: int
    offset: int
    topic: str = "frames"
    value: bytes = b"0123456789"
    timestamp: int = 0


@dataclass
class FakeReader:
    """A stand-in for the reader of a consumer group, with the offsets and notes that a test sets."""

    commits: list[dict[TopicPartition, int | tuple[int, str]]] = field(default_factory=list)
    notes: dict[TopicPartition, str] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)
    hangs: bool = False
    topic: set[int] = field(default_factory=lambda: {0, 1, 2})
    hidden: bool = False
    high: dict[TopicPartition, int] = field(default_factory=dict)
    fetched: float = 0.0
    sought: list[set[TopicPartition]] = field(default_factory=list)

    async def committed_notes(self, partitions: set[TopicPartition]) -> dict[TopicPartition, str]:
        return {p: self.notes[p] for p in partitions if p in self.notes}

    def high_watermark(self, partition: TopicPartition) -> int | None:
        return self.high.get(partition)

    def fetched_s(self, _: TopicPartition) -> float:
        return self.fetched

    def is_missing(self, topic: str) -> bool:
        return not self.topic and not self.hidden

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        self.sought.append(set(partitions))

    async def close(self, deadline_s: float, *, keeps_place: bool) -> None:
        """Do nothing: no connection is open."""

    async def commit(self, offsets: dict[TopicPartition, int | tuple[int, str]]) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.failures:
            raise self.failures.pop(0)
        self.commits.append(offsets)


class Chain:
    """A stand-in for the chain of steps."""

    def __init__(self, tracker: PartitionTracker) -> None:
        self.tracker = tracker
        self.drained: list[float] = []
        self.discarded: list[int] = []
        self.when_drained: list[FrameJob] = []
        self.noted: dict[int, str] = {}
        self.recalls: dict[int, tuple[str, Callable[[], None]]] = {}

    def note(self, number: int, offset: int) -> str:
        return f"{self.noted[number]}<{offset}" if number in self.noted else ""

    def recall_partition(self, number: int, note: str, done: Callable[[], None]) -> bool:
        self.recalls[number] = (note, done)
        return bool(note)

    async def drain(self, seconds: float) -> None:
        self.drained.append(seconds)
        for job in self.when_drained:
            self.tracker.finish(job)

    def discard(self, partition: int) -> None:
        self.discarded.append(partition)


class Bench:
    def __init__(self, **changes: object) -> None:
        plain: dict[str, object] = {"kafka": "none", "bundle": Path("none")}
        settings = ProcessorSettings.model_validate(plain | changes)
        self.reader = FakeReader()
        self.health = Health()
        self.tracker = PartitionTracker(settings)
        self.chain = Chain(self.tracker)
        metrics = ProcessorMetrics(CollectorRegistry())
        self.member = GroupMember(settings, self.tracker, self.chain, self.chain, metrics, self.health)
        self.member.reader = self.reader  # type: ignore[assignment]  # a stand-in
        self.member.joined = True

    def take(self, number: int, offset: int) -> FrameJob:
        return self.tracker.admit(Record(number, offset), 0.0)

    def done(self, number: int, offset: int) -> None:
        self.tracker.finish(self.take(number, offset))

    @property
    def assigned(self) -> bool:
        return bool(self.health.report()[1]["assigned"]["ok"])


def partition(number: int) -> TopicPartition:
    return TopicPartition("frames", number)


@pytest.mark.parametrize(("gather_s", "waits_ms", "least_bytes"), [(0.0, 250, 1), (0.2, 200, 2**20)])
def test_the_fetch_waits_for_many_bytes_only_with_gather_s(gather_s: float, waits_ms: int, least_bytes: int) -> None:
    settings = ProcessorSettings.model_validate({"kafka": "none", "bundle": Path("none"), "gather_s": gather_s})
    tracker, metrics = PartitionTracker(settings), ProcessorMetrics(CollectorRegistry())
    reader = GroupMember(settings, tracker, Chain(tracker), Chain(tracker), metrics, Health()).reader
    assert (reader._options["fetch_max_wait_ms"], reader._options["fetch_min_bytes"]) == (waits_ms, least_bytes)


async def test_a_commit_that_hangs_is_cancelled_and_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_member, "_COMMIT_S", 0.05)
    bench = Bench()
    bench.done(0, 0)
    bench.reader.hangs = True
    async with asyncio.timeout(PATIENCE_S):
        await bench.member.commit()
    bench.reader.hangs = False
    await bench.member.commit()
    assert bench.reader.commits == [{partition(0): 1}]


async def test_a_revoked_partition_is_drained_then_committed_then_discarded() -> None:
    bench = Bench(session_timeout_s=6.0)
    await bench.member.on_partitions_assigned({partition(0)})
    assert bench.assigned
    job = bench.take(0, 41)
    bench.chain.when_drained = [job]
    await bench.member.on_partitions_revoked({partition(0)})
    assert bench.reader.commits == [{partition(0): 42}]
    assert bench.chain.discarded == [0]
    assert 0 < bench.chain.drained[0] < 3
    assert bench.tracker.held == 0
    assert not bench.assigned


async def test_a_partition_without_unread_records_counts_as_read_up_to_its_last_fetch() -> None:
    bench = Bench()
    await bench.member.on_partitions_assigned({partition(0)})
    progress = bench.tracker.progress[partition(0)]
    bench.reader.fetched = 7.0
    bench.take(0, 41)
    assert progress.read_s() == -math.inf  # the end of the partition is unknown
    bench.reader.high[partition(0)] = 44
    assert progress.read_s() == -math.inf
    assert progress.waited_s(5.0, 9.0) == pytest.approx(0.4)
    assert bench.member.lag() == 2
    bench.take(0, 43)
    assert progress.read_s() == 7.0
    assert progress.waited_s(5.0, 9.0) == 2.0
    assert bench.member.lag() == 0


async def test_one_answer_without_the_topic_prevents_a_commit_and_moves_no_position() -> None:
    bench = Bench()
    await bench.member.on_partitions_assigned({partition(0)})
    job = bench.take(0, 41)
    bench.chain.when_drained = [job]
    bench.reader.topic = set()
    await bench.member.on_partitions_revoked({partition(0)})
    await bench.member.on_partitions_assigned(set())
    assert not bench.reader.commits
    assert not bench.reader.sought
    bench.reader.topic = {0, 1, 2}
    await bench.member.on_partitions_assigned({partition(0)})
    assert not bench.reader.sought
    bench.done(0, 41)
    await bench.member.commit()
    assert bench.reader.commits == [{partition(0): 42}]


async def test_offsets_of_a_lost_topic_are_not_committed_to_one_that_is_created_during_the_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    await bench.member.on_partitions_assigned({partition(0)})
    job = bench.take(0, 41)

    async def drain(_: float) -> None:
        bench.tracker.finish(job)
        bench.reader.topic = {0, 1, 2}
        await bench.member.commit()

    monkeypatch.setattr(bench.chain, "drain", drain)
    bench.reader.topic = set()
    await bench.member.on_partitions_revoked({partition(0)})
    assert not bench.reader.commits


async def test_the_successor_of_a_lost_topic_is_read_from_its_beginning() -> None:
    bench = Bench()
    await bench.member.on_partitions_assigned({partition(0)})
    bench.done(0, 41)
    bench.tracker.lost = True
    await bench.member.on_partitions_revoked({partition(0)})
    assert not bench.reader.commits
    await bench.member.on_partitions_assigned({partition(0)})
    assert bench.reader.sought == [{partition(0)}]
    bench.done(0, 0)
    await bench.member.commit()
    assert bench.reader.commits == [{partition(0): 1}]


async def test_a_member_without_partitions_is_behind_no_lost_topic_once_the_others_read_the_next_one() -> None:
    bench = Bench()
    bench.tracker.lost = True
    await bench.member.on_partitions_assigned(set())
    assert bench.tracker.lost  # the topic may still be missing
    assert not bench.member.settle_loss()
    await bench.member.on_partitions_revoked(set())
    await bench.member.on_partitions_assigned({partition(0)})
    assert not bench.reader.sought


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_lost_topic_is_noted_until_the_group_has_assigned_this_member_its_partitions(leaves: bool) -> None:
    bench = Bench()
    await bench.member.on_partitions_assigned(set())
    bench.tracker.lost = True
    if leaves:
        await bench.member.leave(1.0)
        bench.member.joined = True
    else:
        await bench.member.on_partitions_revoked(set())
    assert not bench.member.settle_loss()  # another member has answered for all partitions
    await bench.member.on_partitions_assigned({partition(0)})
    assert bench.reader.sought == [{partition(0)}]


async def test_a_member_that_did_not_notice_the_loss_of_its_topic_begins_again() -> None:
    bench = Bench()
    await bench.member.on_partitions_assigned({partition(0)})
    assert not bench.member.settle_loss()
    bench.tracker.lost = True
    assert bench.member.settle_loss()
    assert bench.tracker.lost


async def test_a_topic_without_a_right_to_it_continues_at_its_committed_offset() -> None:
    bench = Bench()
    await bench.member.on_partitions_assigned({partition(0)})
    bench.reader.topic, bench.reader.hidden = set(), True  # the rights of a revoked certificate
    await bench.member.on_partitions_revoked({partition(0)})
    bench.reader.topic, bench.reader.hidden = {0, 1, 2}, False
    await bench.member.on_partitions_assigned({partition(0)})
    assert not bench.reader.sought


async def test_a_regression_of_offsets_is_detected_before_any_record_is_admitted() -> None:
    bench = Bench()
    bench.take(0, 41)
    records = {partition(1): [Record(1, 7)], partition(0): [Record(0, 0)]}
    with pytest.raises(OffsetRegressionError, match="expected offsets above 41 from partition 0, got 0"):
        bench.tracker.check(records)
    assert bench.tracker.frames == 1
    assert bench.tracker.lost


async def test_a_job_that_does_not_finish_in_the_drain_is_not_committed() -> None:
    bench = Bench()
    bench.take(0, 0)
    second = bench.take(0, 1)
    bench.chain.when_drained = [second]
    await bench.member.on_partitions_revoked({partition(0)})
    assert bench.reader.commits == []


async def test_a_lost_partition_is_discarded_without_a_commit() -> None:
    bench = Bench()
    bench.done(0, 0)
    progress = bench.tracker.progress[partition(0)]
    bench.reader.failures = [CommitFailedError("rebalanced")]
    await bench.member.on_partitions_revoked({partition(0)})
    assert bench.tracker.held == 0
    assert bench.reader.commits == []
    assert bench.take(0, 0).progress is not progress


async def test_a_failed_commit_is_repeated() -> None:
    bench = Bench()
    bench.done(3, 7)
    bench.reader.failures = [KafkaError("down")]
    await bench.member.commit()
    await bench.member.commit()
    await bench.member.commit()
    assert bench.reader.commits == [{partition(3): 8}]


async def test_a_result_for_a_discarded_partition_changes_nothing() -> None:
    bench = Bench()
    old = bench.take(0, 5)
    bench.member.clear()
    new = bench.take(0, 5)
    bench.tracker.finish(old)
    await bench.member.commit()
    assert bench.reader.commits == []
    assert (bench.tracker.frames, bench.tracker.bytes, new.progress.in_flight) == (1, 10, 1)


@pytest.mark.parametrize(("bound", "admitted"), [({"queue_frames": 10}, 10), ({"queue_bytes": 100}, 10)])
async def test_with_full_queues_no_partition_is_read_until_there_is_room(bound: dict[str, int], admitted: int) -> None:
    bench = Bench(**bound)
    await bench.member.on_partitions_assigned({partition(0), partition(1)})
    jobs = [bench.take(number % 2, number) for number in range(admitted)]
    assert bench.tracker.open_partitions() == []
    bench.tracker.room.clear()
    bench.tracker.release(jobs[0])
    assert bench.tracker.room.is_set()
    assert len(bench.tracker.open_partitions()) == 2


async def test_a_partition_above_its_share_waits_while_the_others_are_read() -> None:
    bench = Bench(queue_frames=100, batch_frames=20)
    await bench.member.on_partitions_assigned({partition(number) for number in range(4)})
    for offset in range(25):
        bench.take(2, offset)
    assert set(bench.tracker.open_partitions()) == {partition(0), partition(1), partition(3)}


async def test_a_note_is_committed_with_its_offset_and_returned_with_the_partition() -> None:
    bench = Bench()
    bench.chain.noted[0] = "keys"
    for number in (0, 1):
        bench.done(number, 4)
    await bench.member.commit()
    assert bench.reader.commits == [{partition(0): (5, "keys<5"), partition(1): 5}]

    taking_over = Bench()
    taking_over.reader.notes = {partition(0): "keys<5", partition(1): ""}
    await taking_over.member.on_partitions_assigned({partition(0), partition(1), partition(2)})
    assert {number: note for number, (note, _) in taking_over.chain.recalls.items()} == {0: "keys<5", 1: "", 2: ""}
    assert set(taking_over.tracker.open_partitions()) == {partition(1), partition(2)}
    taking_over.chain.recalls[0][1]()
    assert set(taking_over.tracker.open_partitions()) == {partition(0), partition(1), partition(2)}
    assert taking_over.tracker.room.is_set()


async def test_a_partition_is_read_if_kafka_does_not_return_its_note(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> dict[TopicPartition, object]:
        raise KafkaError("down")

    monkeypatch.setattr(FakeReader, "committed_notes", fail)
    bench = Bench()
    await bench.member.on_partitions_assigned({partition(0)})
    assert bench.tracker.open_partitions() == [partition(0)]
