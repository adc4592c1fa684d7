"""The step that publishes verdicts, dead letters and evidence, with a stand-in for Kafka."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from prometheus_client import CollectorRegistry
from torch import Tensor

from processors.arrivals.job import FrameJob, StripFinding
from processors.bundle.model_toml import Scores
from processors.device.batch_executor import picture_of
from processors.metrics import ProcessorMetrics
from processors.results.delivery import _MOST_OFFERED, Emitter
from processors.results.records import OutgoingRecord
from processors.results.repeats import Repeats
from processors.settings import ProcessorSettings
from processors.steps import publish
from processors.steps.publish import Publish
from schemas.errors import BadPixelsError, BadSizeError, StageError
from schemas.messages.frame import Encoding
from schemas.pixels.packing import Picture
from schemas.pointillist_pb2 import CHECKED, DeadLetter, Verdict
from tests.processors.tiny import (
    KEYS,
    SERVING_MODEL,
    FakeRecord,
    LastStep,
    payload,
    picture,
    verdict_of,
    verified_job,
)
from tests.waiting import PATIENCE_S, until

SETTINGS = ProcessorSettings(kafka="none", bundle=Path("none"))
FLAGGED = StripFinding(0.1, 1.0, 4)


class FullGpu(torch.Tensor):
    """A tensor on a device without free memory: each operation that allocates there raises torch's error."""

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(function, "__name__", "") == "cpu":
            return args[0].as_subclass(torch.Tensor).clone()
        if function == Tensor.shape.__get__:  # type: ignore[attr-defined]  # the shape is on the CPU
            return args[0].as_subclass(torch.Tensor).shape
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")


class InstantEmitter(Emitter):
    """An emitter that keeps the records of each call and acknowledges them at once."""

    def __init__(self) -> None:
        super().__init__("none", lambda _ok, _detail: None)
        self.sent: list[tuple[str, list[OutgoingRecord]]] = []
        self.verdicts: list[Verdict] = []
        self.hangs = False

    async def send(
        self,
        topic: str,
        records: Sequence[OutgoingRecord],
        delivered: Callable[[OutgoingRecord], None] = lambda _: None,
    ) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        self.sent.append((topic, list(records)))
        if topic == SETTINGS.verdicts_topic:
            self.verdicts += [verdict_of(record) for record in records]
        for record in records:
            delivered(record)


class Bench:
    """The step and its outputs."""

    def __init__(self) -> None:
        self.emitter, self.repeats, self.last = InstantEmitter(), Repeats(), LastStep()
        self.step = Publish(SETTINGS, KEYS, self.emitter, self.repeats, ProcessorMetrics(CollectorRegistry()))
        self.step.next = self.last

    async def publish(self, jobs: Sequence[FrameJob]) -> None:
        """Submit jobs together, and wait until Kafka has acknowledged their results."""
        try:
            for job in jobs:
                self.step.submit(job)
            await until(lambda: len(self.last.jobs) == len(jobs) or self.emitter.broken.done(), "the results")
        finally:
            await self.step.close()
        if self.emitter.broken.done():
            self.emitter.broken.result()


def classified(seq: int, camera: str = "site/cam-0") -> FrameJob:
    job = verified_job(payload(camera, seq, encoding=Encoding(16)), camera)
    job.model, job.scores = SERVING_MODEL, Scores(0, 0.9)
    return job


def probe(shown: Tensor, seq: int) -> FrameJob:
    job = classified(seq)
    job.probe, job.finding = shown, FLAGGED
    return job


async def published(jobs: Sequence[FrameJob]) -> list[Verdict]:
    bench = Bench()
    await bench.publish(jobs)
    return bench.emitter.verdicts


async def test_jobs_submitted_together_are_sent_together_and_release_device_memory() -> None:
    bench, jobs = Bench(), [classified(seq) for seq in range(3)]
    jobs[2].probe, jobs[2].finding = torch.zeros(3, 32, 32), StripFinding(2.0, 1.0)
    await bench.publish(jobs)
    ((topic, records),) = bench.emitter.sent
    assert (topic, len(records)) == (SETTINGS.verdicts_topic, 3)
    assert bench.last.jobs == jobs
    assert jobs[2].probe is None


async def test_an_acknowledged_verdict_is_kept_without_its_frame_and_sent_for_a_repeat() -> None:
    bench, job = Bench(), classified(1)
    await bench.publish([job])
    kept = bench.repeats.find(job.identity)
    assert kept is not None
    assert kept.job is None
    again = verified_job(payload("site/cam-0", 1, encoding=Encoding(16)))
    again.verdict = kept
    other = Bench()
    await other.publish([again])
    assert other.emitter.verdicts == bench.emitter.verdicts
    assert len(other.repeats) == 0


async def test_failed_jobs_become_dead_letters_and_a_camera_is_informed_once_about_a_lasting_error() -> None:
    bench = Bench()
    jobs = [verified_job(payload("site/cam-0", seq)) for seq in range(3)]
    jobs.append(FrameJob.of(FakeRecord(b"rubbish"), jobs[0].progress, 0.0))
    errors = [BadPixelsError("short"), BadPixelsError("short"), StageError("odd"), BadSizeError("?")]
    for job, error in zip(jobs, errors, strict=True):
        job.fail("unpack", error)
    await bench.publish(jobs)
    sent = dict(bench.emitter.sent)
    letters = [DeadLetter.FromString(record.value or b"") for record in sent[SETTINGS.dead_letters_topic]]
    assert [(letter.seq, letter.reason, letter.verified) for letter in letters] == [
        (0, "bad_pixels", True), (1, "bad_pixels", True), (2, "stage", True), (0, "bad_size", False),
    ]  # fmt: skip
    assert len(sent[SETTINGS.events_topic]) == 1
    assert len(bench.repeats) == 0


async def test_evidence_needs_no_device_memory() -> None:
    shown = torch.rand(3, 32, 32)
    (verdict,) = await published([probe(shown.as_subclass(FullGpu), 1)])
    assert verdict.flagged
    assert verdict.evidence
    np.testing.assert_array_equal(picture_of(shown.as_subclass(FullGpu)), picture_of(shown))


async def test_a_picture_too_large_for_memory_is_omitted_and_the_others_are_sent() -> None:
    # The evidence has four tebibytes, which makes torch itself raise the error.
    large = torch.zeros(1, 1, 1).expand(1, 2**20, 2**20)
    verdicts = await published([probe(torch.rand(3, 32, 32), 1), probe(torch.rand(3, 32, 32), 2), probe(large, 3)])
    assert {verdict.seq: bool(verdict.evidence) for verdict in verdicts} == {1: True, 2: True, 3: False}
    assert all(verdict.strip == CHECKED and verdict.flagged for verdict in verdicts)


async def test_flagged_frames_of_one_camera_delay_no_verdict_and_only_its_first_ones_have_evidence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoding, bench = threading.Event(), Bench()

    def encode_when_allowed(shown: Picture) -> bytes:
        assert encoding.wait(PATIENCE_S)
        return b"png"

    monkeypatch.setattr(publish, "evidence_png", encode_when_allowed)
    large = torch.zeros(1, 1, 1).expand(3, 1080, 1920)
    flood = [probe(large, seq) for seq in range(20)]
    calm = [classified(seq, "site/cam-1") for seq in range(2)]
    calm[1].shown = picture(1)
    try:
        with structlog.testing.capture_logs() as logs:
            for job in [*flood, *calm]:
                bench.step.submit(job)
            await until(lambda: len(bench.last.jobs) == 20, "all verdicts but two")
        assert all(job in bench.last.jobs for job in calm)
        assert [entry["frame"] for entry in logs if entry["event"] == "evidence_omitted"] == [str(flood[2].identity)]
        encoding.set()
        await until(lambda: len(bench.last.jobs) == 22, "all verdicts")
    finally:
        encoding.set()
        await bench.step.close()
    found = {verdict.seq: bool(verdict.evidence) for verdict in bench.emitter.verdicts if verdict.flagged}
    assert found == {seq: seq < 2 for seq in range(20)}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error")])
async def test_a_device_error_during_evidence_omits_only_the_evidence(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(torch.Tensor, "cpu", fail)
    (verdict,) = await published([probe(torch.from_numpy(picture(1)).permute(2, 0, 1) / 255, 1)])
    assert verdict.flagged
    assert not verdict.evidence


async def test_messages_to_cameras_are_dropped_while_many_wait_as_without_their_topic() -> None:
    emitter = InstantEmitter()
    record = OutgoingRecord(b"lab/door", b"", ())
    emitter.hangs = True
    for _ in range(1_000):
        emitter.offer(SETTINGS.events_topic, [record])
    assert len(emitter._tasks) == _MOST_OFFERED
    await emitter.cancel()
    emitter.hangs = False
    emitter.offer(SETTINGS.events_topic, [record])
    await until(lambda: emitter.sent == [(SETTINGS.events_topic, [record])], "a message")
    await emitter.close(0)
