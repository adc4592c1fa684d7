"""The chain without Kafka: the steps in their order, with a stand-in for the model and for the emitter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from prometheus_client import CollectorRegistry

from processors.arrivals.job import FrameJob
from processors.arrivals.partitions import PartitionTracker
from processors.device.loaded_model import LoadedModel
from processors.metrics import ProcessorMetrics
from processors.results.records import OutgoingRecord
from processors.results.repeats import Repeats
from processors.settings import ProcessorSettings
from processors.steps.chain import build_chain
from processors.steps.deduplicate import Deduplicate
from processors.steps.finish import Finish
from processors.steps.validate import Validate
from schemas.errors import BadTagError, OverSizeError
from schemas.messages.frame import Encoding
from schemas.pointillist_pb2 import DeadLetter
from tests.processors.test_device_turns import Device
from tests.processors.test_publish import InstantEmitter
from tests.processors.tiny import KEYS, FakeRecord, KeyedCamera, LastStep, payload, verified_job
from tests.waiting import running, until

SETTINGS = ProcessorSettings(kafka="none", bundle=Path("none"), linger_s=0.0)
WHOLE = Encoding(16, probe_share=1.0)


class Bench:
    """A chain with a stand-in for the device and for the emitter."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.emitter, self.device = InstantEmitter(), Device()
        self.tracker = PartitionTracker(SETTINGS)
        metrics = ProcessorMetrics(self.registry)
        model = cast(LoadedModel, self.device)
        self.chain = build_chain(SETTINGS, KEYS, model, self.tracker, self.emitter, metrics)
        self.offset = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            async with running(self.chain.device.run()):
                yield
        finally:
            await self.chain.close()

    async def idle(self) -> None:
        """Wait until every record has its result, or raise the error that prevented one."""
        await until(lambda: self.tracker.idle.is_set() or self.emitter.broken.done(), "the results")
        if self.emitter.broken.done():
            self.emitter.broken.result()

    def accept(self, *messages: bytes, camera: str = "site/cam-0", partition: int = 0) -> None:
        first, self.offset = self.offset, self.offset + len(messages)
        key = camera.encode()
        records = [
            ConsumerRecord("frames", partition, offset, 0, 0, key, each, None, len(key), len(each), ())
            for offset, each in enumerate(messages, first)
        ]
        assert self.chain.accept({TopicPartition("frames", partition): records}) == len(messages)

    def committable(self, partition: int = 0) -> int | None:
        return self.tracker.progress[TopicPartition("frames", partition)].uncommitted()

    def count(self, outcome: str) -> float:
        return self.registry.get_sample_value("pointillist_frames_total", {"outcome": outcome}) or 0.0


async def test_each_record_ends_with_one_result_and_only_then_may_its_offset_be_committed() -> None:
    bench, message = Bench(), payload("site/cam-0", 3)
    bench.accept(
        *(payload("site/cam-0", seq) for seq in range(3)), payload("site/cam-0", 9, encoding=WHOLE), b"rubbish"
    )
    assert bench.committable() is None
    assert (bench.tracker.unfinished, bench.tracker.idle.is_set()) == (5, False)
    async with bench.running():
        await bench.idle()
        assert sorted(verdict.seq for verdict in bench.emitter.verdicts) == [0, 1, 2, 9]
        assert bench.committable() == 5
        assert bench.device.checked == [1]
        bench.accept(message, payload("site/cam-0", 1))  # the second is a repeat
        await bench.idle()
        assert bench.device.batches == [4, 1]
    assert (bench.count("classified"), bench.count("dead_lettered")) == (6, 1)
    assert (bench.tracker.frames, bench.tracker.bytes) == (0, 0)
    (letter,) = [r for topic, records in bench.emitter.sent if topic == SETTINGS.dead_letters_topic for r in records]
    assert not DeadLetter.FromString(letter.value or b"").verified


async def test_the_jobs_of_a_revoked_partition_are_dropped_and_their_offsets_stay() -> None:
    bench = Bench()
    bench.accept(payload("site/cam-0", 0), partition=3)
    bench.accept(payload("site/cam-0", 1), partition=4)
    bench.chain.discard(3)
    assert bench.tracker.unfinished == 1
    async with bench.running():
        await bench.idle()
    assert [verdict.seq for verdict in bench.emitter.verdicts] == [1]
    assert (bench.committable(3), bench.committable(4)) == (None, 2)


@pytest.mark.usefixtures("keyed_profile")
async def test_a_drain_finishes_the_batch_on_the_device_and_leaves_waiting_frames_to_the_next_owner() -> None:
    bench, camera = Bench(), KeyedCamera()
    camera.message()
    bench.device.free.clear()
    async with bench.running():
        bench.accept(payload("site/cam-0", 100))
        await until(lambda: bench.device.batches == [1])
        bench.accept(camera.message(), payload("site/cam-0", 101))  # one waits for its key frame, one for the device
        assert bench.tracker.unfinished == 3
        drain = asyncio.create_task(bench.chain.drain(20.0))
        await asyncio.sleep(0)  # the drain begins before the device is free
        bench.device.free.set()
        await drain
    assert [verdict.seq for verdict in bench.emitter.verdicts] == [100]
    assert bench.device.batches == [1]
    assert bench.tracker.unfinished == 0
    assert bench.committable() == 1


async def test_a_probe_counts_as_in_flight_until_its_verdict_is_acknowledged() -> None:
    bench = Bench()
    bench.emitter.hangs = True
    bench.accept(*(payload("site/cam-0", seq, encoding=WHOLE) for seq in range(3)))
    async with bench.running():
        await until(lambda: sum(bench.device.checked) == 3)
        await until(lambda: bench.tracker.frames == 3, "the verdicts in flight")
    assert bench.tracker.bytes == sum(len(payload("site/cam-0", seq, encoding=WHOLE)) for seq in range(3))


async def test_a_cancelled_delivery_is_not_a_result() -> None:
    bench = Bench()
    bench.emitter.hangs = True
    bench.accept(payload("site/cam-0", 0))
    async with bench.running():
        await until(lambda: bench.device.batches == [1])
    assert bench.committable() is None
    assert not bench.emitter.broken.done()


def validated(record: FakeRecord) -> tuple[FrameJob, ProcessorMetrics]:
    metrics, last = ProcessorMetrics(CollectorRegistry()), LastStep()
    step = Validate(SETTINGS.model_copy(update={"max_frame_pixels": 32 * 32}), KEYS, metrics)
    step.next = last
    step.submit(FrameJob.of(record, verified_job(payload("site/cam-0", 0)).progress, 0.0))
    (job,) = last.jobs
    return job, metrics


def test_a_valid_record_becomes_a_frame_and_its_bytes_are_not_kept_twice() -> None:
    job, _ = validated(FakeRecord(payload("site/cam-0", 3)))
    assert (job.identity.seq, job.error, job.record) == (3, None, None)


def test_a_record_of_another_camera_fails_and_keeps_its_bytes_for_the_dead_letter() -> None:
    job, _ = validated(FakeRecord(payload("site/cam-1", 3)))
    assert isinstance(job.error, BadTagError)
    assert (job.stage, job.record is not None) == ("validate", True)


def test_a_frame_above_the_size_limit_fails_with_an_error_of_its_own() -> None:
    job, _ = validated(FakeRecord(payload("site/cam-0", 3, shown=np.zeros((32, 40, 3), np.uint8))))
    assert isinstance(job.error, OverSizeError)
    assert (job.stage, job.record) == ("validate", None)


def deduplicated(jobs: Sequence[FrameJob], known: FrameJob) -> list[FrameJob]:
    repeats, last = Repeats(), LastStep()
    repeats.remember(known.identity, OutgoingRecord(b"site/cam-0", b"a verdict", []))
    step = Deduplicate(repeats)
    step.next = last
    for job in jobs:
        step.submit(job)
    return last.jobs


def test_a_repeat_gets_the_first_verdict_and_any_other_frame_none() -> None:
    first, again, other = (verified_job(payload("site/cam-0", seq)) for seq in (1, 1, 2))
    found = deduplicated([again, other], first)
    assert [job.verdict.value if job.verdict else None for job in found] == [b"a verdict", None]
    assert [job.concluded for job in found] == [True, False]


@pytest.mark.parametrize("failed", [False, True])
def test_a_finished_job_is_counted_by_its_result(failed: bool) -> None:
    registry, tracker = CollectorRegistry(), PartitionTracker(SETTINGS)
    job = tracker.admit(ConsumerRecord("frames", 0, 4, 0, 0, b"", b"xyz", None, 0, 3, ()), 0.0)
    if failed:
        job.fail("validate", BadTagError("no"))
    Finish(tracker, ProcessorMetrics(registry)).submit(job)
    outcome = {"outcome": "dead_lettered" if failed else "classified"}
    assert registry.get_sample_value("pointillist_frames_total", outcome) == 1
    assert job.progress.uncommitted() == 5
    assert tracker.idle.is_set()
