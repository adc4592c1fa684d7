"""The turns of the device: a batch at once while it idles, together where it is busy, and probes between batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import torch
from prometheus_client import CollectorRegistry

from processors.arrivals.job import FrameJob, StripFinding
from processors.arrivals.partitions import PartitionTracker
from processors.bundle.model_toml import Answer, Scores
from processors.device.loaded_model import LoadedModel
from processors.device.scheduler import DeviceScheduler
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Emitter
from processors.settings import ProcessorSettings
from processors.steps.classify import Classify
from processors.steps.compare import Compare
from processors.steps.device_turns import DeviceTurns
from processors.steps.strip import Strip
from schemas.errors import NoKeyFrameError
from tests.processors.tiny import CLASSES, KEYS, Last, payload, taken
from tests.waiting import until

LINGER_S = 1.0
FOR_EVER_S = 600.0


class Device:
    """A model that takes as long as it is set to, and finds nothing."""

    model_id, policy, probe_s = "m@1+0", "resize", None
    strip_threshold_bits = 0.25

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.checked: list[int] = []
        self.each_s = 0.0

    def answer(self, scores: Scores) -> Answer:
        return Answer(CLASSES[scores.class_id], scores.confidence, "", 0.0, ())

    def batch_pixels(self, job: FrameJob) -> int:
        return job.shape.pixels

    async def classify(self, jobs: Sequence[FrameJob]) -> float:
        self.batches.append(len(jobs))
        await asyncio.sleep(self.each_s)
        for job in jobs:
            job.scores = Scores(0, 0.5)
            job.probe = torch.zeros(3, 8, 8) if job.frame.whole else None
        return self.each_s

    async def strip(self, jobs: Sequence[FrameJob]) -> float:
        self.checked.append(len(jobs))
        for job in jobs:
            job.finding = StripFinding(1.0, 0.25)
        return 0.001


class Bench:
    """The two steps of the device, and what comes after them."""

    def __init__(self, linger_s: float = FOR_EVER_S, strip_queue: int = 64) -> None:
        settings = ProcessorSettings(kafka="none", bundle=Path("none"), strip_queue=strip_queue)
        settings = settings.model_copy(update={"linger_s": linger_s})
        self.registry = CollectorRegistry()
        metrics = ProcessorMetrics(self.registry)
        self.device, self.last = Device(), Last()
        self.tracker = PartitionTracker(settings)
        self.classify = Classify(settings, cast(LoadedModel, self.device), metrics)
        self.strip = Strip(settings, self.tracker, metrics)
        self.classify.next, self.strip.next = self.strip, self.last
        self.compare = Compare(settings, KEYS, self.classify, cast(Emitter, None), metrics)
        self.turns = DeviceTurns(self.classify, self.strip, self.compare, DeviceScheduler(0.25, 0.1), metrics)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.turns.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def submit(self, seq: int, camera: str = "site/a", partition: int = 0) -> FrameJob:
        job = taken(payload(camera, seq), camera)
        job.arrived_s, job.partition = time.monotonic(), partition
        self.classify.submit(job)
        return job

    def probe(self, partition: int = 0) -> FrameJob:
        """A probe that Classify has finished with, submitted to Strip."""
        job = taken(payload("site/a", 1), "site/a")
        job.partition, job.model = partition, cast(LoadedModel, self.device)
        job.progress.in_flight, self.tracker.frames = job.progress.in_flight + 1, self.tracker.frames + 1
        job.probe = torch.zeros(3, 8, 8)
        self.strip.submit(job)
        return job


async def test_a_frame_waits_for_others_only_as_far_as_the_device_is_busy() -> None:
    bench = Bench(LINGER_S)
    async with bench.running():
        began = time.monotonic()
        bench.submit(0)
        await until(lambda: len(bench.last.jobs) == 1)
        assert time.monotonic() - began < LINGER_S
        assert bench.classify.linger_s == 0
        bench.device.each_s = 0.8
        bench.submit(1)
        await until(lambda: len(bench.last.jobs) == 2)
        assert bench.classify.linger_s > LINGER_S / 2
        bench.submit(2)
        await asyncio.sleep(0.05)  # had it not waited, it would be alone on the device by now
        bench.submit(3, "site/b")
        bench.device.each_s = 0.0
        await until(lambda: len(bench.last.jobs) == 4)
        assert bench.device.batches == [1, 1, 2]


async def test_while_draining_no_frame_waits_for_others() -> None:
    bench = Bench()
    bench.device.each_s = 0.6
    async with bench.running():
        bench.submit(0)
        await until(lambda: len(bench.last.jobs) == 1)
        assert bench.classify.linger_s > FOR_EVER_S / 2
        bench.submit(1)
        with bench.turns.draining():
            await until(lambda: bench.device.batches == [1, 1])


async def test_frames_of_a_revoked_partition_leave_both_queues() -> None:
    bench = Bench()
    mine, probe = bench.submit(0, partition=3), bench.probe(partition=3)
    bench.submit(1, partition=4), bench.probe(partition=4)
    assert [*bench.classify.discard(3), *bench.strip.discard(3)] == [mine, probe]
    assert (len(bench.classify.discard(4)), len(bench.strip)) == (1, 1)


async def test_a_job_with_a_result_and_a_frame_that_is_no_probe_pass() -> None:
    bench, failed, plain = Bench(), taken(payload("site/a", 1), "site/a"), taken(payload("site/a", 2), "site/a")
    failed.fail("key", NoKeyFrameError("none"))
    bench.classify.submit(failed)
    bench.strip.submit(plain)
    assert bench.last.jobs == [failed, plain]


async def test_a_probe_counts_for_its_partition_until_it_waits_for_strip_and_a_full_queue_sheds_it() -> None:
    bench = Bench(strip_queue=2)
    jobs = [bench.probe() for _ in range(3)]
    assert [job.counted for job in jobs] == [False, False, True]
    assert bench.tracker.frames == 1
    assert bench.last.jobs == [jobs[2]]
    assert jobs[2].finding == StripFinding(None, 0.25)
    async with bench.running():
        await until(lambda: len(bench.last.jobs) == 3)
    assert jobs[0].finding == StripFinding(1.0, 0.25)
    assert bench.registry.get_sample_value("pointillist_strip_frames_total", {"outcome": "checked"}) == 2


@pytest.mark.parametrize("error", [RuntimeError("a fault"), SystemExit(3)])
async def test_a_comparison_that_raises_costs_no_frame(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(LINGER_S)

    async def fail(first: FrameJob) -> float:
        raise error

    monkeypatch.setattr(bench.compare, "run", fail)
    async with bench.running():
        bench.compare._queue.offer(taken(payload("site/a", 1), "site/a"))
        bench.submit(2)
        await until(lambda: not len(bench.compare))
        bench.submit(3)
        await until(lambda: len(bench.last.jobs) == 2)
    assert bench.registry.get_sample_value("pointillist_comparisons_total", {"outcome": "dropped"}) == 1


async def test_waiting_probes_are_shed_at_half_of_a_drain() -> None:
    bench = Bench()
    job = bench.probe()
    bench.strip.shed_waiting()
    assert bench.last.jobs == [job]
    assert job.finding == StripFinding(None, 0.25)
