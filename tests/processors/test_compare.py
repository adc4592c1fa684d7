"""The step of the second model without Kafka: waiting, dropped and sent comparisons."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from processors.arrivals.job import FrameJob, StripFinding
from processors.arrivals.partitions import PartitionTracker
from processors.device.candidate import Candidate
from processors.device.loaded_model import TimeLimit, load_model
from processors.device.lost_device import DeviceLostError
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Delivered, Emitter
from processors.results.records import OutgoingRecord
from processors.settings import ProcessorSettings
from processors.steps.classify import Classify
from processors.steps.compare import Compare
from processors.steps.strip import Strip
from schemas.errors import StageError
from schemas.identity import CameraId
from schemas.messages.server_messages import open_statement
from schemas.pointillist_pb2 import CANARY, SHADOW, Comparison, Model, Rollout, Slot
from schemas.runtime.abandoned import abandoned
from tests.processors.tiny import KEYS, LastStep, payload, verified_job, write_bundle
from tests.waiting import PATIENCE_S, until

CAMERA = "site/a"


class Sent:
    """An emitter that keeps the records instead of sending them."""

    def __init__(self) -> None:
        self.records: list[OutgoingRecord] = []
        self.accepts = True

    def post(self, topic: str, records: Sequence[OutgoingRecord], delivered: Delivered) -> None:
        self.records += records
        for record in records if self.accepts else ():
            delivered(record)

    @property
    def comparisons(self) -> list[Comparison]:
        return [open_statement(Comparison, CameraId(CAMERA), each.value or b"", KEYS) for each in self.records]


class Bench:
    """A live model, a candidate with the same weights, and the two steps that use them."""

    def __init__(self, settings: ProcessorSettings) -> None:
        self.settings = settings
        self.registry = CollectorRegistry()
        self.metrics = ProcessorMetrics(self.registry)
        self.sent, self.last = Sent(), LastStep()

    async def load(self, slot: Slot) -> None:
        live, candidate = [await load_model(self.settings, self.metrics, self.settings.bundle) for _ in range(2)]
        self.classify = Classify(self.settings, live, self.metrics)
        rollout = Rollout(candidate=Model(digest="a" * 64), begun_ms=5, slot=slot, frames=1.0, cameras=1.0)
        self.classify.candidate = Candidate(candidate, rollout)
        self.compare = Compare(self.settings, KEYS, self.classify, cast(Emitter, self.sent), self.metrics)
        self.classify.next, self.compare.next = self.compare, self.last

    async def run(self, count: int) -> None:
        """Classify frames and pass them on."""
        jobs = [verified_job(payload(CAMERA, seq), CAMERA) for seq in range(count)]
        await self.classify.run(jobs)
        self.classify.pass_on(jobs)

    async def judge(self) -> None:
        while len(self.compare):
            await self.compare.run(self.compare.next_job())

    def outcome(self, name: str) -> float:
        return self.registry.get_sample_value("pointillist_comparisons_total", {"outcome": name}) or 0.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bundle = write_bundle(tmp_path / "bundle")
    return Bench(
        ProcessorSettings(
            kafka="none", bundle=bundle, device="cpu", backend="torch", threads=1, batch_frames=8, comparison_queue=8
        )
    )


@pytest.mark.parametrize("slot", [SHADOW, CANARY])
async def test_equal_models_give_equal_classes_and_some_frames_are_timed_on_both(bench: Bench, slot: Slot) -> None:
    await bench.load(slot)
    await bench.run(8)
    assert len(bench.last.jobs) == 8  # no job waits for the second model
    await bench.judge()
    found = bench.sent.comparisons
    assert [each.seq for each in found] == list(range(8))
    assert all(each.live.class_id == each.candidate.class_id for each in found)
    timed = [each.seq for each in found if each.live.seconds > 0 and each.candidate.seconds > 0]
    assert timed == [3, 7]
    assert bench.outcome("compared") == 8


async def test_a_full_queue_drops_new_frames_and_counts_them(bench: Bench) -> None:
    await bench.load(SHADOW)
    await bench.run(11)
    assert len(bench.last.jobs) == 11
    assert len(bench.compare) == 8
    assert bench.outcome("dropped") == 3


async def test_a_canarys_frame_on_which_strip_fails_keeps_its_class_and_the_gate_gets_the_error(bench: Bench) -> None:
    await bench.load(CANARY)
    strip = Strip(bench.settings, PartitionTracker(bench.settings), bench.metrics)
    taken_by_strip, strip.next = LastStep(), bench.compare
    bench.classify.next = taken_by_strip
    await bench.run(1)
    (job,) = taken_by_strip.jobs
    job.fail("strip", StageError("the entropy is not a number"))
    strip.pass_on([job])
    (passed,) = bench.last.jobs
    assert (passed.error, passed.stage, passed.finding) == (None, "", StripFinding(None, 0.0))
    await bench.judge()
    (found,) = bench.sent.comparisons
    assert found.candidate.error == "the entropy is not a number"
    assert (found.live.class_id, found.live.error) == (passed.class_id, "")
    assert bench.outcome("failed") == 1


async def test_a_shadows_probe_on_which_the_live_models_strip_fails_stays_failed(bench: Bench) -> None:
    await bench.load(SHADOW)
    strip = Strip(bench.settings, PartitionTracker(bench.settings), bench.metrics)
    taken_by_strip, strip.next = LastStep(), bench.compare
    bench.classify.next = taken_by_strip
    await bench.run(1)
    (job,) = taken_by_strip.jobs
    job.fail("strip", StageError("the entropy is not a number"))
    strip.pass_on([job])
    assert isinstance(bench.last.jobs[0].error, StageError)
    assert len(bench.compare) == 0


async def test_while_kafka_accepts_no_comparison_at_most_64_are_pending(bench: Bench) -> None:
    await bench.load(SHADOW)
    bench.sent.accepts = False
    for _ in range(9):
        await bench.run(8)
        await bench.judge()
    assert len(bench.sent.records) == 64
    assert bench.outcome("dropped") == 8


async def test_frames_of_an_ended_rollout_are_not_judged(bench: Bench) -> None:
    await bench.load(SHADOW)
    await bench.run(4)
    bench.classify.candidate = None
    await bench.judge()
    assert not bench.sent.records
    assert bench.outcome("dropped") == 4


async def test_frames_that_were_queued_as_shadow_are_not_sent_as_canary(bench: Bench) -> None:
    await bench.load(SHADOW)
    await bench.run(4)
    before = bench.classify.candidate
    assert before is not None
    promoted = Rollout()
    promoted.CopyFrom(before.rollout)
    promoted.slot = CANARY
    bench.classify.candidate = replace(before, rollout=promoted)
    await bench.judge()
    assert not bench.sent.records
    assert bench.outcome("dropped") == 4
    await bench.run(2)
    repeated = Rollout()
    repeated.CopyFrom(promoted)
    bench.classify.candidate = replace(before, rollout=repeated)  # the list was read again
    await bench.judge()
    assert [each.slot for each in bench.sent.comparisons] == [CANARY, CANARY]


@pytest.mark.parametrize("slot", [SHADOW, CANARY])
async def test_a_hanging_candidate_delays_frames_once_by_its_time_limit_and_loses_no_verdict(
    bench: Bench, slot: Slot
) -> None:
    await bench.load(slot)
    candidate = bench.classify.candidate
    assert candidate is not None
    hangs, errors = threading.Event(), list[str]()
    classify = candidate.model.executor.classify

    def late(batch: Sequence[FrameJob]) -> None:
        hangs.wait(60)
        classify(batch)

    candidate.model.executor.classify = late  # type: ignore[method-assign]  # a network that does not return
    candidate.model.limit.seconds, candidate.model.limit.report = 0.05, errors.append
    before = abandoned()
    try:
        await bench.run(3)
        await bench.judge()
        assert abandoned() == before + 1  # a shutdown does not wait for it
    finally:
        hangs.set()
    candidate.model.thread.shutdown(wait=True)
    assert abandoned() == before
    assert errors == ["expected classify within 0.05 s, got no result"]
    assert [job.error for job in bench.last.jobs] == [None] * 3
    assert not any(job.by_candidate for job in bench.last.jobs)
    assert [job.scores.class_id for job in bench.last.jobs] == [each.live.class_id for each in bench.sent.comparisons]
    assert {each.candidate.error for each in bench.sent.comparisons} == set(errors)


@pytest.mark.parametrize("by_candidate", [False, True])
async def test_the_loss_of_the_device_is_counted_if_the_candidate_has_caused_it(
    bench: Bench, by_candidate: bool
) -> None:
    def lose_device(batch: Sequence[FrameJob]) -> None:
        raise DeviceLostError("the device is lost")

    await bench.load(CANARY if by_candidate else SHADOW)
    candidate, losses = bench.classify.candidate, list[str]()
    assert candidate is not None
    candidate.model.limit.seconds = PATIENCE_S
    for model in (candidate.model, bench.classify.loaded):
        model.executor.classify = lose_device  # type: ignore[method-assign]  # a network that destroys the context
        model.limit.count_loss = partial(losses.append, "counted")
    with pytest.raises(DeviceLostError):
        await bench.run(1)
    assert losses == ["counted"] * by_candidate
    assert not bench.last.jobs


class PromotedDuringTheBatch(TimeLimit):
    """A limit that is set when it is first read and removed after that."""

    reads = 0

    def __getattribute__(self, name: str) -> Any:
        if name != "seconds":
            return super().__getattribute__(name)
        self.reads += 1
        return 0.01 if self.reads == 1 else None


async def test_a_candidate_that_is_promoted_during_a_batch_beyond_its_limit_keeps_the_batch(bench: Bench) -> None:
    await bench.load(CANARY)
    candidate = bench.classify.candidate
    assert candidate is not None
    classify, ready, limit = candidate.model.executor.classify, threading.Event(), PromotedDuringTheBatch()

    def late(batch: Sequence[FrameJob]) -> None:
        assert ready.wait(60)
        classify(batch)

    candidate.model.executor.classify = late  # type: ignore[method-assign]  # a network that is slow once
    bench.classify.candidate = replace(candidate, model=replace(candidate.model, limit=limit))
    running = asyncio.create_task(bench.run(3))
    await until(lambda: limit.reads == 2 or running.done())
    ready.set()
    await running
    assert limit.exceeded == ""
    assert [(job.error, job.by_candidate) for job in bench.last.jobs] == [(None, True)] * 3
