"""The turns of the device: batches without delay while it is idle, larger batches under load, and probes in between."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from prometheus_client import CollectorRegistry

from processors.arrivals.job import FrameJob, PatchCertificate, StripFinding
from processors.arrivals.partitions import PartitionTracker
from processors.bundle.model_toml import Answer, Scores
from processors.device.candidate import Candidate
from processors.device.loaded_model import LoadedModel
from processors.device.scheduler import DeviceScheduler
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Emitter
from processors.settings import ProcessorSettings
from processors.steps import certify, classify, device_turns
from processors.steps.certify import Certify
from processors.steps.classify import Classify
from processors.steps.compare import Compare
from processors.steps.device_turns import DeviceTurns
from processors.steps.strip import Strip
from schemas.errors import NoKeyFrameError, StageError
from schemas.pointillist_pb2 import CANARY, VIDEO, Rollout
from tests.processors.tiny import CLASSES, KEYS, LastStep, payload, verified_job
from tests.waiting import running, until

LINGER_S = 1.0
FOR_EVER_S = 600.0


class Device:
    """A model that advances its own clock by a set time for each batch and returns the same scores for every frame."""

    model_id, policy, probe_s = "m@1+0", "resize", None
    strip_threshold_bits = 0.25

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.checked: list[int] = []
        self.certificates, self.turns_each, self.faulty = 0, 3, False
        self.certificates_before = 0
        self.turns: Counter[FrameJob] = Counter()
        """Turns of each frame's certificate."""
        self.turns_of: dict[FrameJob, int] = {}
        """Turns that a frame's certificate takes, instead of `turns_each`."""
        self.each_s, self.clock_s = 0.0, 1000.0
        self.free = asyncio.Event()
        self.free.set()

    def answer(self, scores: Scores) -> Answer:
        return Answer(CLASSES[scores.class_id], scores.confidence, "", 0.0, ())

    def batch_pixels(self, job: FrameJob) -> int:
        return job.shape.pixels

    async def classify(self, jobs: Sequence[FrameJob]) -> float:
        self.batches.append(len(jobs))
        self.certificates_before = self.certificates
        self.clock_s += self.each_s
        await asyncio.sleep(0)
        await self.free.wait()
        for job in jobs:
            job.scores = Scores(0, 0.5)
            job.probe = torch.zeros(3, 8, 8) if job.frame.whole else None
        return self.each_s

    async def strip(self, jobs: Sequence[FrameJob]) -> float:
        self.checked.append(len(jobs))
        for job in jobs:
            job.finding = StripFinding(1.0, 0.25)
        return 0.001

    certifies = True

    async def certify(self, job: FrameJob) -> float:
        self.certificates += 1
        await asyncio.sleep(0)  # as the real device's thread lets other tasks run
        if self.faulty:
            raise RuntimeError("a fault")
        self.turns[job] += 1
        if self.turns[job] == self.turns_of.get(job, self.turns_each):
            job.certified = PatchCertificate(5, certified=True)
        return 0.001


class Bench:
    """The steps of the device, and a last step that keeps the finished jobs."""

    def __init__(self, linger_s: float = FOR_EVER_S, strip_queue: int = 64, certify_queue: int = 2) -> None:
        settings = ProcessorSettings(
            kafka="none", bundle=Path("none"), strip_queue=strip_queue, certify_queue=certify_queue
        )
        settings = settings.model_copy(update={"linger_s": linger_s})
        self.registry = CollectorRegistry()
        metrics = ProcessorMetrics(self.registry)
        self.device, self.last = Device(), LastStep()
        self.tracker = PartitionTracker(settings)
        self.classify = Classify(settings, cast(LoadedModel, self.device), metrics)
        self.strip = Strip(settings, self.tracker, metrics)
        self.certify = Certify(settings, self.tracker, metrics, self.classify.arrived)
        self.classify.next, self.strip.next, self.certify.next = self.strip, self.certify, self.last
        self.compare = Compare(settings, KEYS, self.classify, cast(Emitter, None), metrics)
        scheduler = DeviceScheduler(0.25, 0.1)
        self.turns = DeviceTurns(self.classify, self.strip, self.certify, self.compare, scheduler, metrics)

    def running(self) -> AbstractAsyncContextManager[None]:
        return running(self.turns.run())

    def submit(self, seq: int, camera: str = "site/a", partition: int = 0, arrived_s: float | None = None) -> FrameJob:
        job = verified_job(payload(camera, seq), camera)
        job.arrived_s, job.partition = time.monotonic() if arrived_s is None else arrived_s, partition
        self.classify.submit(job)
        return job

    def probe(self, partition: int = 0) -> FrameJob:
        """Submit a classified probe to Strip, and return it."""
        job = verified_job(payload("site/a", 1), "site/a")
        job.partition, job.model = partition, cast(LoadedModel, self.device)
        job.progress.in_flight, self.tracker.frames = job.progress.in_flight + 1, self.tracker.frames + 1
        job.probe = torch.zeros(3, 8, 8)
        self.strip.submit(job)
        return job

    def chosen(self, seq: int, partition: int = 0) -> FrameJob:
        """Submit a classified frame whose label is to be certified to Strip, and return it."""
        job = verified_job(payload("site/a", seq), "site/a")
        job.partition, job.model, job.certifies = partition, cast(LoadedModel, self.device), True
        job.progress.in_flight, self.tracker.frames = job.progress.in_flight + 1, self.tracker.frames + 1
        self.strip.submit(job)
        return job

    def submit_classified(self, seq: int) -> FrameJob:
        """Submit a frame to Certify that was classified now by the device's clock, and return it."""
        job = verified_job(payload("site/a", seq), "site/a")
        job.model, job.certifies, job.classified_s = cast(LoadedModel, self.device), True, self.device.clock_s
        self.certify.submit(job)
        return job

    def certificates(self, outcome: str) -> float:
        found = self.registry.get_sample_value("pointillist_certificates_total", {"outcome": outcome})
        assert found is not None
        return found


async def test_a_frame_waits_for_a_larger_batch_only_while_the_device_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(LINGER_S)
    clock = SimpleNamespace(monotonic=lambda: bench.device.clock_s)
    for module in (classify, device_turns):
        monkeypatch.setattr(module, "time", clock)
    async with bench.running():
        bench.submit(0, arrived_s=bench.device.clock_s)
        await until(lambda: len(bench.last.jobs) == 1)  # without delay: the clock stands still
        assert bench.classify.linger_s == 0
        bench.device.each_s = 0.5
        bench.submit(1, arrived_s=bench.device.clock_s)
        await until(lambda: len(bench.last.jobs) == 2)
        assert LINGER_S / 10 < bench.classify.linger_s < LINGER_S
        bench.submit(2, arrived_s=bench.device.clock_s)
        for _ in range(20):
            await asyncio.sleep(0)  # long enough for a frame that does not wait to reach the device alone
        bench.submit(3, "site/b", arrived_s=bench.device.clock_s)
        bench.device.clock_s += LINGER_S
        bench.classify.arrived.set()
        await until(lambda: len(bench.last.jobs) == 4)
        assert bench.device.batches == [1, 1, 2]


async def test_work_counts_from_its_begin_to_its_end_without_pauses_of_the_machine() -> None:
    bench = Bench(linger_s=0.0)
    assert bench.turns.observe(1000.0) == 0
    bench.device.free.clear()
    async with bench.running():
        bench.submit(0)
        await until(lambda: bench.device.batches)
        assert [bench.turns.observe(now_s) for now_s in (1001.0, 1003.0, 9000.0)] == [1.0, 3.0, 8.0]
        bench.device.free.set()
        await until(lambda: bench.last.jobs)
        assert bench.turns.observe(9001.0) == 0
        bench.device.free.clear()
        bench.submit(1)
        await until(lambda: len(bench.device.batches) == 2)
        assert bench.turns.observe(9002.0) == 1.0
        bench.device.free.set()


def feed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Submit another frame with each batch of .1 s, and return the iterator of the frames' numbers.

    All steps use the clock of the bench's device.
    """
    device, seqs = bench.device, count()
    for module in (classify, device_turns):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: device.clock_s))

    async def one_more(jobs: Sequence[FrameJob]) -> float:
        bench.submit(next(seqs), arrived_s=device.clock_s)
        return await Device.classify(device, jobs)

    monkeypatch.setattr(device, "classify", one_more)
    device.each_s = 0.1
    return seqs


async def test_a_probe_between_batches_is_charged_for_the_waiting_time_of_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, before = Bench(linger_s=0.0), list[int]()
    device, seqs = bench.device, feed(bench, monkeypatch)

    async def check(jobs: Sequence[FrameJob]) -> float:
        before.append(len(device.batches))
        bench.submit(next(seqs), arrived_s=device.clock_s)
        device.clock_s += 5.0
        return 5.0

    monkeypatch.setattr(device, "strip", check)
    for _ in range(3):
        bench.probe()
    async with bench.running():
        await until(lambda: len(before) == 3)
    # A quarter of the device: 15 s of batches follow each turn of 5 s. No batch was ready when the first turn began.
    assert before == pytest.approx([0, 150, 300], abs=5)


async def test_frames_of_a_revoked_partition_leave_both_queues() -> None:
    bench = Bench()
    mine, probe = bench.submit(0, partition=3), bench.probe(partition=3)
    bench.submit(1, partition=4), bench.probe(partition=4)
    assert [*bench.classify.discard(3), *bench.strip.discard(3)] == [mine, probe]
    assert (len(bench.classify.discard(4)), len(bench.strip)) == (1, 1)


async def test_a_job_with_a_result_and_a_frame_that_is_no_probe_pass_at_once() -> None:
    bench, failed, plain = (
        Bench(),
        verified_job(payload("site/a", 1), "site/a"),
        verified_job(payload("site/a", 2), "site/a"),
    )
    failed.fail("key", NoKeyFrameError("none"))
    bench.classify.submit(failed)
    bench.strip.submit(plain)
    assert bench.last.jobs == [failed, plain]


async def test_a_probe_counts_for_its_partition_until_strip_queues_it_and_a_full_queue_sheds_it() -> None:
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


@pytest.mark.parametrize("lacks_memory", [False, True])
async def test_a_probe_for_whose_check_memory_is_missing_keeps_its_class_and_counts_as_shed(
    lacks_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = StageError("OutOfMemoryError: out of memory")
    error.__cause__ = MemoryError() if lacks_memory else None

    async def strip(jobs: Sequence[FrameJob]) -> float:
        for job in jobs:
            job.fail("strip", error)
        return 0.001

    bench = Bench()
    monkeypatch.setattr(bench.device, "strip", strip)
    job = bench.probe()
    async with bench.running():
        await until(lambda: bench.last.jobs == [job])
    shed = bench.registry.get_sample_value("pointillist_strip_frames_total", {"outcome": "shed"})
    if lacks_memory:
        assert (job.stage, job.error, job.finding, shed) == ("", None, StripFinding(None, 0.25), 1)
    else:
        assert (job.stage, job.error, job.finding, shed) == ("strip", error, None, 0)


async def test_frames_count_for_their_partition_again_after_the_queues() -> None:
    bench = Bench()
    late, checked, certified = bench.probe(), bench.probe(), bench.chosen(2)
    assert bench.tracker.frames == 0
    late.classified_s = 0.0
    bench.strip.poll(time.monotonic())
    async with bench.running():
        await until(lambda: len(bench.last.jobs) == 3)
    assert [job.counted for job in (late, checked, certified)] == [True] * 3
    assert [job.progress.in_flight for job in (late, checked, certified)] == [1] * 3
    assert bench.tracker.frames == 3


async def test_probes_that_have_waited_for_too_long_are_shed_and_the_others_stay() -> None:
    bench, now_s = Bench(), time.monotonic()
    late, fresh = bench.probe(), bench.probe()
    late.classified_s, fresh.classified_s = now_s - 2.1, now_s - 1.9
    bench.strip.poll(now_s)
    assert (bench.last.jobs, len(bench.strip)) == ([late], 1)
    assert late.finding == StripFinding(None, 0.25)
    assert bench.registry.get_sample_value("pointillist_strip_frames_total", {"outcome": "shed"}) == 1


async def test_the_wait_of_a_frame_begins_when_its_batch_is_classified() -> None:
    bench, before_s = Bench(LINGER_S), time.monotonic()
    async with bench.running():
        job = bench.submit(0)
        await until(lambda: len(bench.last.jobs) == 1)
    assert before_s <= job.classified_s <= time.monotonic()


class CandidateModel(Device):
    """A candidate that reports `seconds` for each batch, and has exceeded its limit if it `hangs`."""

    def __init__(self, seconds: float, hangs: bool) -> None:
        super().__init__()
        self._seconds, self._hangs = seconds, hangs

    async def classify(self, jobs: Sequence[FrameJob]) -> float:
        await super().classify(jobs)
        for job in jobs if self._hangs else ():
            job.fail("classify", StageError("no result"))
        return self._seconds


@pytest.mark.parametrize(
    ("seconds", "hangs", "each_s"),
    [(10.0, True, 0.01), (9.0, False, 0.02), (0.01, False, 0.015)],
    ids=["hangs", "slow", "quick"],
)
async def test_a_camera_is_not_charged_for_a_candidate_slower_than_the_live_model(
    seconds: float, hangs: bool, each_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    bench.device.each_s = 0.02
    batch = [verified_job(payload(name, 1), name) for name in ("site/canary", "site/other")]
    model = cast(LoadedModel, CandidateModel(seconds, hangs))
    bench.classify.candidate = Candidate(model, Rollout(slot=CANARY))
    monkeypatch.setattr(Candidate, "serves", lambda self, job: job is batch[0])
    assert await bench.classify.run(batch) == seconds + 0.02
    shares = bench.classify._batcher._shares
    assert [shares.used_s(job.camera_id) for job in batch] == [each_s] * 2


@pytest.mark.parametrize("error", [RuntimeError("a fault"), SystemExit(3)])
async def test_a_comparison_that_raises_an_error_fails_no_frame(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(LINGER_S)

    async def fail(first: FrameJob) -> float:
        raise error

    monkeypatch.setattr(bench.compare, "run", fail)
    async with bench.running():
        bench.compare._queue.offer(verified_job(payload("site/a", 1), "site/a"))
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


async def test_a_certificate_takes_several_turns_and_a_full_queue_sheds_it() -> None:
    bench = Bench()
    jobs = [bench.chosen(seq) for seq in range(3)]
    assert (bench.last.jobs, bench.certificates("shed")) == ([jobs[2]], 1)
    assert [job.counted for job in jobs] == [False, False, True]
    async with bench.running():
        await until(lambda: len(bench.last.jobs) == 3)
    assert [job.certified for job in jobs] == [PatchCertificate(5, certified=True)] * 2 + [None]
    assert (bench.device.certificates, bench.certificates("certified"), len(bench.certify)) == (6, 2, 0)


async def test_a_ready_batch_precedes_a_certificate_above_its_share() -> None:
    bench = Bench()
    bench.device.turns_each = 10**9
    bench.chosen(0)
    async with bench.running():
        await until(lambda: bench.device.certificates > 1)
        bench.submit(1)
        before = bench.device.certificates
        await until(lambda: bool(bench.device.batches))
        assert bench.device.certificates_before <= before + 1


@pytest.mark.parametrize("frames_wait", [False, True])
async def test_a_certificate_is_charged_for_the_time_in_which_frames_wait_for_it(
    frames_wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, before = Bench(linger_s=0.0, certify_queue=16), list[int]()
    device, seqs = bench.device, feed(bench, monkeypatch)

    async def one_second(job: FrameJob) -> float:
        before.append(len(device.batches))
        if frames_wait and len(before) == 1:
            bench.submit(next(seqs), arrived_s=device.clock_s)
        device.clock_s += 1.0
        if not frames_wait and len(before) == 3:
            bench.submit(next(seqs), arrived_s=device.clock_s)
        job.certified = PatchCertificate(5, certified=True)
        return 1.0

    monkeypatch.setattr(device, "certify", one_second)
    for seq in range(4):
        bench.chosen(seq)
    async with bench.running():
        await until(lambda: len(before) >= (2 if frames_wait else 4))
    # While no frame waits, certificates are free. A second of waiting is .15 of the time of 67 batches.
    if frames_wait:
        assert before[:2] == pytest.approx([0, 67], abs=3)
    else:
        assert before[:4] == pytest.approx([0, 0, 0, 1], abs=3)


async def test_the_share_of_certificates_accumulates_while_the_device_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, before = Bench(linger_s=0.0), list[int]()
    device = bench.device
    for module in (classify, device_turns):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: device.clock_s))

    async def one_second(job: FrameJob) -> float:
        before.append(len(device.batches))
        bench.submit(len(before), arrived_s=device.clock_s)
        device.clock_s += 1.0
        job.certified = PatchCertificate(5, certified=True)
        return 1.0

    monkeypatch.setattr(device, "certify", one_second)
    bench.chosen(0)
    async with bench.running():
        await until(lambda: len(bench.last.jobs) == 2)
        device.clock_s += 20.0
        bench.submit(5, arrived_s=device.clock_s)
        bench.chosen(6)
        await until(lambda: len(before) == 2)
    # The first certificate delayed a frame by 1 s, which is .15 of 7 s. The second one runs before the new frame.
    assert before == [0, 1]


async def test_flagged_probes_are_certified_and_frames_of_video_are_not() -> None:
    bench = Bench()
    flagged, video = bench.chosen(0), verified_job(payload("site/a", 1), "site/a")
    bench.certify.discard(0)
    flagged.certifies, flagged.finding = False, StripFinding(0.1, 0.25)
    bench.certify.submit(flagged)
    video.model, video.certifies, video.frame.profile = cast(LoadedModel, bench.device), True, VIDEO
    bench.certify.submit(video)
    assert (len(bench.certify), bench.last.jobs) == (1, [video])


async def test_a_request_for_certificates_waits_for_frames_that_can_be_certified() -> None:
    bench = Bench()
    bench.classify.requests.request("site/a", 1)
    jobs = [verified_job(payload("site/a", seq), "site/a") for seq in range(5)]
    video, moving, canary, failed, fit = jobs
    video.frame.profile, moving.frame.moving = VIDEO, 1

    async def run(job: FrameJob, policy: str = "resize", certifies: bool = True) -> None:
        bench.device.policy, bench.device.certifies = policy, certifies
        await bench.classify.run([job])
        if job is failed:
            job.fail("classify", StageError("a fault"))
        bench.classify.pass_on([job])

    await run(video)
    await run(moving, policy="motion")
    await run(canary, certifies=False)
    await run(failed)
    await run(fit)
    await run(verified_job(payload("site/a", 5), "site/a"))
    assert [job.certifies for job in jobs] == [False, False, False, False, True]
    assert (len(bench.certify), len(bench.last.jobs)) == (1, 5)


@pytest.mark.parametrize("flagged", [False, True])
async def test_a_frame_that_has_waited_for_too_long_gets_no_certificate(
    flagged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, now_s = Bench(), 1000.0
    monkeypatch.setattr(certify, "time", SimpleNamespace(monotonic=lambda: now_s))
    jobs = [bench.chosen(seq) for seq in range(2)]
    for job in jobs:
        job.finding, job.classified_s = StripFinding(0.1 if flagged else 0.3, 0.25), now_s - 2.9
    await bench.certify.run()
    bench.certify.poll(now_s)
    assert (bench.last.jobs, len(bench.certify)) == ([], 2)
    for job in jobs:
        job.classified_s = now_s - 3.1
    bench.certify.poll(now_s)
    assert bench.last.jobs == jobs[::-1]
    assert len(bench.certify) == 0
    assert bench.certificates("shed") == 2


async def test_a_late_certificate_is_shed_at_the_end_of_its_turn_and_later_frames_are_certified() -> None:
    bench = Bench()
    bench.device.turns_each = 10**9
    late = bench.chosen(0)
    late.certifies, late.finding, late.classified_s = False, StripFinding(0.1, 0.25), time.monotonic() - 3.1
    async with bench.running():
        await until(lambda: bench.last.jobs == [late])
        bench.device.turns_each = 1
        other = bench.chosen(1)
        await until(lambda: bench.last.jobs == [late, other])
    assert (late.certified, bench.certificates("shed")) == (None, 1)
    assert other.certified is not None


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a bench whose certificates use the clock of its device."""
    bench = Bench(certify_queue=16)
    monkeypatch.setattr(certify, "time", SimpleNamespace(monotonic=lambda: bench.device.clock_s))
    return bench


async def test_an_excess_of_frames_does_not_prevent_all_certificates(clocked: Bench) -> None:
    clocked.device.turns_each = 20
    for turn in range(1200):
        # A certificate takes two of the three seconds that a frame may wait, and four frames arrive in this time.
        clocked.device.clock_s += 0.1
        if turn % 5 == 0:
            clocked.submit_classified(turn)
            clocked.certify.poll(clocked.device.clock_s)
        await clocked.certify.run()
        clocked.certify.pass_on()
    assert clocked.certificates("certified") > 1200 / clocked.device.turns_each * 0.8


async def test_short_certificates_do_not_prevent_long_ones(clocked: Bench) -> None:
    clocked.device.turns_each = 2
    long = []
    for turn in range(1200):
        clocked.device.clock_s += 0.1
        if turn % 3 == 0:
            job = clocked.submit_classified(turn)
            if turn % 6 == 0:
                clocked.device.turns_of[job] = 20
                long.append(job)
        await clocked.certify.run()
        clocked.certify.pass_on()
    assert sum(job.certified is not None for job in long) > 1200 / 22 * 0.8


async def test_one_slow_certificate_does_not_prevent_those_of_later_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    monkeypatch.setattr(certify, "time", SimpleNamespace(monotonic=lambda: bench.device.clock_s))
    bench.device.turns_each = 1
    bench.submit_classified(0)
    await bench.certify.run()
    bench.device.clock_s += 2.9
    bench.certify.pass_on()
    for seq in range(1, 21):
        bench.submit_classified(seq)
        bench.device.clock_s += 0.5
        bench.certify.poll(bench.device.clock_s)
        await bench.certify.run()
        bench.certify.pass_on()
    assert bench.certificates("certified") > 10


async def test_a_certificate_that_fails_fails_no_frame() -> None:
    bench = Bench()
    bench.device.faulty = True
    job = bench.chosen(0)
    async with bench.running():
        await until(lambda: bench.last.jobs == [job])
    assert (job.certified, job.error, bench.certificates("failed")) == (None, None, 1)


async def test_a_drain_sheds_all_certificates_including_the_one_in_progress() -> None:
    bench = Bench()
    bench.device.turns_each = 10**9
    jobs = [bench.chosen(seq) for seq in range(2)]
    await bench.certify.run()
    with bench.certify.shedding():
        assert bench.last.jobs == [jobs[1], jobs[0]]
        late = bench.chosen(5)
        assert bench.last.jobs[-1] is late
    assert bench.certificates("shed") == 3
    bench.chosen(6)
    assert len(bench.certify) == 1


async def test_certificates_do_not_resume_when_a_rebalance_ends_during_a_shutdown() -> None:
    bench = Bench()
    with bench.certify.shedding():
        with bench.certify.shedding():
            pass
        assert bench.last.jobs == [bench.chosen(0)]
