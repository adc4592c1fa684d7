"""The bridge's Kafka clients against a Kafka that fails or hangs: each failed client is closed and replaced."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any, TypeAlias

import pytest
import structlog
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, MessageSizeTooLargeError

import producers.bridge.kafka.backlog as backlog_module
import producers.bridge.requests.listener as requests_module
import schemas.transport.kafka.produce_requests as produce_module
import schemas.transport.kafka.producers as producers_module
from producers.bridge.kafka.backlog import (
    FIRSTS_EVERY,
    LEAST_EVENT_BYTES,
    MAX_UNRECORDED_BYTES,
    RECORD_BYTES,
    SKIPPED,
    Backlog,
)
from producers.bridge.requests.listener import Requests
from schemas.runtime.health import Health
from schemas.topics import RECORDED_GROUP, KafkaTopic
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.reader import Reader
from schemas.transport.kafka.sender import PlainRecord, Sender
from tests.producers.kafka_stand_in import Event, KafkaStandIn
from tests.waiting import running, until

SOON_S = 0.05
EVENT = Event(b"hall/door", b"value", [])


@pytest.fixture
async def kafka(monkeypatch: pytest.MonkeyPatch) -> KafkaStandIn:
    """Yield a stand-in for Kafka with one partition, and clients with short deadlines."""
    stand_in = KafkaStandIn(partitions=1)
    stand_in.patch(monkeypatch)
    monkeypatch.setattr(producers_module, "START_S", SOON_S)
    monkeypatch.setattr(producers_module, "CLOSE_S", SOON_S)
    monkeypatch.setattr(random, "uniform", lambda *_: 0.01)
    return stand_in


def new_sender(health: Health | None = None) -> Sender:
    found = health or Health()
    return Sender("nowhere:1", name="b1", on_health=lambda ok, detail: found.set("kafka", ok, detail))


async def deliver(sender: Sender, partition: int = 0) -> None:
    await sender.deliver("topic", partition, [PlainRecord(b"key", b"value", [])], lambda _records, _offset: None)


async def test_a_producer_that_does_not_start_in_time_is_closed_before_the_next_attempt(
    kafka: KafkaStandIn,
) -> None:
    health = Health()
    sender = new_sender(health)
    kafka.reachable.clear()
    task = asyncio.create_task(deliver(sender))
    await until(lambda: len(kafka.producers) > 2, "several tries")
    assert [producer.ended for producer in kafka.producers[:-1]] == [1] * (len(kafka.producers) - 1)
    assert health.report()[1]["kafka"] == {"ok": False, "detail": "no answer from nowhere:1: TimeoutError"}
    kafka.reachable.set()
    await asyncio.wait_for(task, 60)
    assert kafka.batches
    assert health.report()[0]


async def test_a_producer_cancelled_during_its_start_is_closed(kafka: KafkaStandIn) -> None:
    kafka.reachable.clear()
    async with running(deliver(new_sender())):
        await until(lambda: kafka.producers, "a try")
    assert kafka.producers[-1].ended == 1


async def test_a_producer_whose_connections_do_not_close_delays_no_other_producer(kafka: KafkaStandIn) -> None:
    sender = new_sender()
    kafka.closing.clear()
    kafka.batch_errors.append(KafkaError("out of order"))
    await asyncio.wait_for(deliver(sender), 60)
    assert len(kafka.producers) == 2
    await asyncio.wait_for(sender.close(SOON_S), 20)
    assert not any(producer.running for producer in kafka.producers)


async def test_a_batch_rejected_for_its_size_leaves_the_batches_of_other_partitions_in_flight(
    kafka: KafkaStandIn,
) -> None:
    sender, refused = new_sender(), list[str]()
    kafka.answers.clear()
    kafka.batch_errors.append(MessageSizeTooLargeError())
    record = PlainRecord(b"key", b"value", [])
    large = sender.deliver("topic", 0, [record], lambda *_: None, refused=lambda _, why: refused.append(why))
    first = asyncio.create_task(large)
    await until(lambda: len(kafka.batches) == 1, "one batch")
    second = asyncio.create_task(deliver(sender, 1))
    await until(lambda: len(kafka.batches) == 2, "two batches")
    kafka.answers.set()
    await asyncio.wait_for(asyncio.gather(first, second), 60)
    assert len(kafka.batches) == 2
    assert "5 bytes" in refused[0]
    await sender.close(SOON_S)


PAUSE_S = 0.0123
"""Delay between two readings of the lag, different from all other delays."""
Reported: TypeAlias = list[object]
Follow: TypeAlias = Callable[[Reported], Coroutine[Any, Any, None]]


def follow_backlog(reported: Reported) -> Coroutine[Any, Any, None]:
    return Backlog("nowhere:1", "b1", "processors", 10**9, PAUSE_S, lambda _: None, reported.append).run([0])


def follow_requests(reported: Reported) -> Coroutine[Any, Any, None]:
    return Requests("nowhere:1", "b1", [lambda records, now_s: reported.append((list(records), now_s))]).run()


FOLLOWERS = [(follow_backlog, backlog_module), (follow_requests, requests_module)]


async def wait_for_report(kafka: KafkaStandIn, reported: Reported) -> None:
    """Wait until a report arrives after all queued failures."""
    await until(lambda: not kafka.failures and kafka.events.empty(), "all failures")
    before = len(reported)
    if any(consumer.topics for consumer in kafka.consumers):
        kafka.events.put_nowait([EVENT])
    await until(lambda: len(reported) > before and reported[-1] is not None, "an answer")


@pytest.mark.parametrize(("follow", "module"), FOLLOWERS)
async def test_a_reader_of_kafka_logs_one_warning_after_repeated_failures_at_its_start(
    kafka: KafkaStandIn, follow: Follow, module: ModuleType
) -> None:
    reported: Reported = []
    for failures, complaints in ((module.LOG_AFTER - 1, 0), (module.LOG_AFTER + 2, 1)):
        kafka.failures.extend([KafkaError("away")] * failures)
        with structlog.testing.capture_logs() as logs:
            async with running(follow(reported)):
                await wait_for_report(kafka, reported)
        assert [entry["log_level"] for entry in logs] == ["warning"] * complaints
        unknown = max(0, failures - module.LOG_AFTER + 1)
        assert reported.count(None) == (unknown if module is backlog_module else 0)


async def test_a_known_backlog_stays_known_through_all_failures(kafka: KafkaStandIn) -> None:
    reported: Reported = []
    async with running(follow_backlog(reported)):
        for failures in (0, 2, 4):
            kafka.failures.extend([KafkaError("away")] * failures)
            await wait_for_report(kafka, reported)
        assert None not in reported


async def test_the_lag_is_read_less_often_while_the_processors_make_no_progress(
    kafka: KafkaStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep, slept, progress = asyncio.sleep, list[int](), list[object]()

    async def count(delay_s: float) -> None:
        if delay_s == PAUSE_S:
            slept.append(len(progress))
            if len(slept) == 12:
                kafka.committed[0] = 5
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", count)
    async with running(follow_backlog(progress)):
        await until(lambda: len(slept) >= 16, "many pauses")
    # Three more readings without progress follow the first; then every fourth, until the processors progress again.
    assert slept[:16] == [1, 2, 3, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 8, 9, 10]


LIMIT = MAX_UNRECORDED_BYTES // 1000
"""The largest number of unrecorded verdicts of 1,000 bytes that holds no frame back."""


async def test_unrecorded_verdicts_hold_frames_back_until_half_of_the_limit_is_recorded(kafka: KafkaStandIn) -> None:
    held: list[bool] = []
    kafka.recorder_commits, kafka.verdict_ends = {0: (100, "1000"), 1: (0, "1000")}, {0: 100 + LIMIT, 1: LIMIT}
    backlog = Backlog("nowhere:1", "b1", "processors", 10**9, PAUSE_S, held.append, lambda _: None)

    async def recorded(offset: int, expected: bool) -> None:
        kafka.recorder_commits = {0: (offset, "1000"), 1: (0, "1000")}
        readings = backlog._readings
        await until(lambda: backlog._readings > readings + FIRSTS_EVERY, "the recorders' lag read again")
        assert backlog.holding == expected

    with structlog.testing.capture_logs() as logs:
        async with running(backlog.run([0])):
            await recorded(100, False)
            kafka.verdict_ends = {0: 101 + LIMIT, 1: LIMIT // 2}
            for offset, expected in ((100, True), (100 + LIMIT // 2, True), (102 + LIMIT // 2, False)):
                await recorded(offset, expected)
    assert held == [True, False]
    assert [(entry["event"], entry["topic"]) for entry in logs] == [
        ("backpressure_started", KafkaTopic.VERDICTS),
        ("backpressure_ended", KafkaTopic.VERDICTS),
    ]


async def test_frames_are_held_back_while_verdicts_or_frames_are_over_their_limit(kafka: KafkaStandIn) -> None:
    held: list[bool] = []
    backlog = Backlog("nowhere:1", "b1", "processors", 1000, PAUSE_S, held.append, lambda _: None)
    backlog.sizes.add(0, 1, 100)
    kafka.recorder_commits, kafka.verdict_ends = {0: (0, "1000")}, {0: LIMIT + 1}
    async with running(backlog.run([0])):
        await until(lambda: backlog.holding, "verdicts that hold frames back")
        kafka.ends = {0: 11}
        await until(lambda: backlog.bytes == 1100, "unprocessed frames")
        kafka.recorder_commits = {0: (LIMIT + 1, "1000")}
        await until(lambda: KafkaTopic.VERDICTS not in backlog._full, "all verdicts recorded")
        assert held == [True]
        kafka.committed = {0: 11}
        await until(lambda: not backlog.holding, "all frames processed")
    assert held == [True, False]


@pytest.mark.parametrize(("topic", "holds_frames"), [(KafkaTopic.EVENTS, False), (KafkaTopic.DEAD_LETTERS, True)])
async def test_unrecorded_events_hold_events_back_and_unrecorded_dead_letters_hold_frames_back(
    kafka: KafkaStandIn, topic: KafkaTopic, holds_frames: bool
) -> None:
    limit = MAX_UNRECORDED_BYTES // RECORD_BYTES[topic]
    frames, events = list[bool](), list[bool]()
    # The recorder's mean size of a record is small, but later records may be larger.
    kafka.other_commits, kafka.other_ends = {topic: {0: (100, "1")}}, {topic: {0: 100 + limit}}
    backlog = Backlog(
        "nowhere:1", "b1", "processors", 10**9, PAUSE_S, frames.append, lambda _: None, hold_events=events.append
    )
    held, other = (frames, events) if holds_frames else (events, frames)

    async def recorded(offset: int, expected: list[bool]) -> None:
        kafka.other_commits = {topic: {0: (offset, "1")}}
        readings = backlog._readings
        await until(lambda: backlog._readings > readings + FIRSTS_EVERY, "the recorders' lag read again")
        assert held == expected

    async with running(backlog.run([0])):
        await recorded(100, [])
        kafka.other_ends = {topic: {0: 101 + limit}}
        await recorded(100, [True])
        await recorded(100 + limit // 2, [True])
        await recorded(102 + limit // 2, [True, False])
    assert other == []


async def test_events_of_this_bridge_count_before_the_recorders_lag_is_read_again(kafka: KafkaStandIn) -> None:
    size = 1024
    limit = MAX_UNRECORDED_BYTES // size
    kafka.other_commits = {KafkaTopic.EVENTS: {0: (7, "1")}}
    events = list[bool]()
    backlog = Backlog(
        "nowhere:1", "b1", "processors", 10**9, 3600.0, events.append, lambda _: None, hold_events=events.append
    )
    backlog.deliver_unrecorded(KafkaTopic.EVENTS, 0, 10**9, 1, size)
    assert events == []  # no recorder has committed yet
    async with Reader("nowhere:1") as reader, Admin("nowhere:1") as admin:
        await backlog._read_unrecorded(reader, admin)
    for end, expected in ((7 + limit, []), (8 + limit, [True]), (9 + limit, [True])):
        backlog.deliver_unrecorded(KafkaTopic.EVENTS, 0, end, 1, size)
        assert events == expected


async def test_an_event_counts_the_largest_mean_size_since_all_were_recorded(kafka: KafkaStandIn) -> None:
    backlog = Backlog("nowhere:1", "b1", "processors", 10**9, 3600.0, lambda _: None, lambda _: None)

    async def reads(offset: int, end: int) -> int | None:
        kafka.other_commits, kafka.other_ends = {KafkaTopic.EVENTS: {0: (offset, "1")}}, {KafkaTopic.EVENTS: {0: end}}
        async with Reader("nowhere:1") as reader, Admin("nowhere:1") as admin:
            await backlog._read_unrecorded(reader, admin)
        return backlog._unrecorded_bytes(KafkaTopic.EVENTS)

    assert await reads(0, 10) == 10 * RECORD_BYTES[KafkaTopic.EVENTS]  # nothing sent yet
    backlog.deliver_unrecorded(KafkaTopic.EVENTS, 0, 2_000, 2_000, 2_000 * 4_000)
    for end in range(3_000, 13_000, 1_000):
        backlog.deliver_unrecorded(KafkaTopic.EVENTS, 0, end, 1_000, 1_000 * 100)
    assert await reads(0, 12_000) == 12_000 * 4_000
    assert await reads(12_000, 12_000) == 0
    assert await reads(12_000, 12_010) == 10 * LEAST_EVENT_BYTES


@pytest.mark.parametrize("note", [None, "", "no number"], ids=["no commit", "no note", "another note"])
async def test_verdicts_hold_no_frame_back_if_no_recorder_has_committed_a_size(
    kafka: KafkaStandIn, note: str | None
) -> None:
    kafka.recorder_commits, kafka.verdict_ends = ({} if note is None else {0: (0, note)}), {0: 10**9}
    held, reported = list[bool](), list[object]()
    async with running(Backlog("nowhere:1", "b1", "processors", 10**9, 0.001, held.append, reported.append).run([0])):
        await until(lambda: len(reported) > 2 * FIRSTS_EVERY, "many readings")
    assert (held, reported.count(None)) == ([], 0)


async def test_a_bridge_not_authorized_to_read_the_recorders_lag_still_reads_the_processors_lag(
    kafka: KafkaStandIn,
) -> None:
    kafka.recorder_errors.extend([GroupAuthorizationFailedError()] * 5)
    reported: Reported = []
    with structlog.testing.capture_logs() as logs:
        async with running(follow_backlog(reported)):
            await until(lambda: not kafka.recorder_errors, "all refusals")
    assert reported.count(None) == 0
    assert [(entry["event"], entry["group"]) for entry in logs] == [("lag_not_read", RECORDED_GROUP)]


async def test_unrecorded_verdicts_are_detected_also_while_no_confirmation_waits(
    kafka: KafkaStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep, slept = asyncio.sleep, list[float]()

    async def count(delay_s: float) -> None:
        if delay_s == PAUSE_S:
            slept.append(delay_s)
            if len(slept) == 100:
                kafka.verdict_ends = {0: LIMIT + 1}
        await sleep(0)

    kafka.recorder_commits = {0: (0, "1000")}
    monkeypatch.setattr(asyncio, "sleep", count)
    held: list[int] = []

    def hold(_: bool) -> None:
        held.append(len(slept))

    backlog = Backlog("nowhere:1", "b1", "processors", 10**9, PAUSE_S, hold, lambda _: None, lambda: False)
    async with running(backlog.run([0])):
        await until(lambda: held, "frames held back")
    assert 100 <= held[0] <= 100 + FIRSTS_EVERY * (SKIPPED + 1)


async def test_a_batch_is_resent_when_another_batch_has_broken_its_producer(
    kafka: KafkaStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.answers.clear()
    sender = Sender("nowhere:1", deadline_s=3600.0)
    waiting = asyncio.create_task(deliver(sender))
    await until(lambda: len(kafka.batches) == 1, "a batch in flight")
    with monkeypatch.context() as patched:

        async def fail(*_: object, **__: object) -> None:
            raise OSError("gone")

        patched.setattr(produce_module, "produce", fail)
        with pytest.raises(OSError, match="gone"):
            await sender.deliver("topic", 1, [PlainRecord(b"key", b"value", [])], lambda *_: None, once=True)
    await until(lambda: len(kafka.batches) == 2, "the batch sent again")
    kafka.answers.set()
    await asyncio.wait_for(waiting, 30)
    assert len(kafka.producers) == 2
    await sender.close()


async def test_a_batch_without_an_acknowledgement_fails_at_its_deadline(kafka: KafkaStandIn) -> None:
    kafka.answers.clear()
    sender = Sender("nowhere:1", deadline_s=SOON_S)
    with pytest.raises(TimeoutError, match=r"topic-0: expected an acknowledgement within 0\.05 s"):
        await sender.deliver("topic", 0, [PlainRecord(b"key", b"value", [])], lambda *_: None, once=True)
    await sender.close()
