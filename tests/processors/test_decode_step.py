"""The step that decodes video: the pictures, gaps, repeats, failures, and revoked partitions."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from prometheus_client import CollectorRegistry

from processors.arrivals.job import FrameJob
from processors.arrivals.partitions import PartitionTracker
from processors.arrivals.progress import PartitionProgress
from processors.decoding import process
from processors.device.decode import whole_picture
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Emitter
from processors.results.key_requests import KeyRequests
from processors.results.records import OutgoingRecord
from processors.settings import ProcessorSettings
from processors.steps.chain import video_decoders
from processors.steps.decode import Decode
from schemas.errors import BadPixelsError, MissingReferenceError
from schemas.messages.frame import mask_seq
from schemas.pixels.masks import kept_mask
from schemas.pixels.planes import luma_of
from schemas.pointillist_pb2 import KeyRequest
from tests.processors.tiny import (
    KEYS,
    FakeEmitter,
    LastStep,
    VideoCamera,
    batch_executor,
    camera_key,
    classify_copies,
    payload,
    tiny_bundle,
    verified_job,
)
from tests.waiting import until

SETTINGS = ProcessorSettings(kafka="none", bundle=Path("none"))
VERDICT = OutgoingRecord(b"site/cam-0", b"a verdict", [])


class Bench:
    """The step and its outputs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.posted, self.last = FakeEmitter(), LastStep()
        self.tracker = PartitionTracker(SETTINGS)
        metrics = ProcessorMetrics(self.registry)
        requests = KeyRequests(SETTINGS, cast(Emitter, self.posted), metrics)
        self.step = Decode(video_decoders(SETTINGS), self.tracker, requests, metrics)
        self.step.next = self.last

    async def submit(self, *jobs: FrameJob, passed: int) -> list[FrameJob]:
        """Submit jobs, and return all passed ones once there are this many."""
        for job in jobs:
            self.step.submit(job)
        await until(lambda: len(self.last.jobs) >= passed)
        return self.last.jobs

    def count(self, outcome: str) -> float:
        self.step.poll(0.0)
        return self.registry.get_sample_value("pointillist_video_frames_total", {"outcome": outcome}) or 0.0

    @property
    def requested(self) -> list[int]:
        return [KeyRequest.FromString(each.value or b"").seq for each in self.posted.records]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.step.close()


async def test_frames_in_any_order_are_decoded_and_frames_of_other_profiles_pass_at_once(bench: Bench) -> None:
    camera = VideoCamera()
    first, second, third = camera.frame(), camera.frame(), camera.frame()
    other = verified_job(payload("site/cam-0", 9))
    bench.step.submit(other)
    assert bench.last.jobs == [other]
    done = await bench.submit(third, second, first, passed=4)
    assert {job.frame.seq for job in done} == {9, 0, 1, 2}
    for job in (first, second, third):
        assert job.planes is not None
        kept = kept_mask(camera_key(camera.name), 7, 0, 64, 96, 16)
        difference = np.abs(job.planes.luma.astype(int) - luma_of(camera.shown(job.frame.seq)))
        assert float(difference[kept].mean()) < 6
    assert bench.count("decoded") == 3
    assert not bench.requested


async def test_the_classifier_reads_the_kept_pixels_of_the_group_s_mask_only(bench: Bench, tmp_path: Path) -> None:
    camera, executor = VideoCamera(), batch_executor(tiny_bundle(tmp_path))
    jobs = await bench.submit(*(camera.frame() for _ in range(3)), passed=3)
    before = classify_copies(executor, jobs)
    kept = kept_mask(camera_key(camera.name), 7, 0, 64, 96, 16)
    for job in jobs:
        assert job.planes is not None
        job.planes.luma[~kept] ^= 255
    after = classify_copies(executor, jobs)
    assert [job.confidence for job in before] == [job.confidence for job in after]
    for job in jobs:
        assert mask_seq(job.frame) == 0
        assert job.planes is not None
        job.planes.luma[kept] ^= 255
    changed = classify_copies(executor, jobs)
    assert [job.confidence for job in before] != [job.confidence for job in changed]


async def test_the_change_is_zero_for_a_still_picture_and_positive_for_a_moving_one(
    bench: Bench, tmp_path: Path
) -> None:
    still, moving = VideoCamera(group_frames=3), VideoCamera("site/moving")
    still.still = True
    executor = batch_executor(tiny_bundle(tmp_path))
    jobs = await bench.submit(*(still.frame() for _ in range(4)), *(moving.frame() for _ in range(2)), passed=6)
    done = {(str(job.camera_id), job.frame.seq): job.changed for job in classify_copies(executor, jobs)}
    assert [done[still.name, seq] for seq in range(4)] == [None, 0.0, 0.0, 0.0]  # the last one begins a group
    assert (done[moving.name, 1] or 0.0) > 0.1


async def test_a_probe_is_decoded_alone_and_whole(bench: Bench) -> None:
    camera = VideoCamera(probe_share=1.0)
    (probe,) = await bench.submit(camera.frame(), passed=1)
    assert probe.frame.whole
    difference = np.abs(whole_picture(probe).astype(int) - camera.shown(0))
    assert float(difference.mean()) < 6


async def test_a_missing_frame_fails_the_rest_of_its_group_by_name_and_the_next_group_passes(bench: Bench) -> None:
    camera = VideoCamera(group_frames=4)
    frames = [camera.frame() for _ in range(8)]
    await bench.submit(*(frames[place] for place in (0, 2, 3, 4, 5)), passed=3)
    bench.step.poll(SETTINGS.group_wait_s + 1)
    done = await bench.submit(passed=5)
    failed = [job for job in done if job.error is not None]
    assert [job.frame.seq for job in failed] == [2, 3]
    assert all(isinstance(job.error, MissingReferenceError) and job.stage == "decode" for job in failed)
    assert bench.requested == [0]
    done = await bench.submit(frames[6], passed=6)
    assert done[-1].error is None
    assert bench.count("missing") == 2


async def test_the_wait_for_a_missing_frame_counts_while_its_partition_is_read_to_its_end(bench: Bench) -> None:
    camera = VideoCamera()
    key, _, late = (camera.frame() for _ in range(3))
    late.progress.read_s = lambda: late.arrived_s
    await bench.submit(key, late, passed=1)
    bench.step.poll(SETTINGS.group_wait_s + 1)
    assert bench.count("missing") == 0  # the frame may lie unread in Kafka
    late.progress.read_s = lambda: late.arrived_s + SETTINGS.group_wait_s
    bench.step.poll(SETTINGS.group_wait_s + 1)
    assert isinstance((await bench.submit(passed=2))[-1].error, MissingReferenceError)


async def test_the_wait_counts_if_the_partition_is_not_read_because_of_the_waiting_frames(bench: Bench) -> None:
    camera = VideoCamera()
    key, _, late = (camera.frame() for _ in range(3))
    late.progress.read_s = lambda: late.arrived_s
    await bench.submit(key, late, passed=1)
    bench.tracker.bytes, bench.tracker.frames = SETTINGS.queue_bytes, 2
    bench.step.poll(SETTINGS.group_wait_s + 1)
    assert bench.count("missing") == 0  # another frame is still processed, and its room will be released
    bench.tracker.frames = 1
    bench.step.poll(SETTINGS.group_wait_s + 1)
    await bench.submit(passed=2)


async def test_waiting_frames_beyond_half_a_share_fail_from_the_camera_with_the_most(
    bench: Bench,
) -> None:
    for number in range(4):
        bench.tracker.progress[TopicPartition("frames", number)] = PartitionProgress()
    most = bench.tracker.fair_share() // 2
    late, gaps = VideoCamera("site/late"), VideoCamera("site/gaps", group_frames=100)
    key, missing, waiting = (late.frame() for _ in range(3))
    first, _, *later = (gaps.frame() for _ in range(most + 1))
    await bench.submit(key, waiting, first, *later[:-1], passed=2)
    assert bench.count("missing") == 0
    await bench.submit(later[-1], passed=2)
    assert bench.count("missing") == most - 1
    done = await bench.submit(missing, passed=most + 3)
    assert {str(job.camera_id) for job in done if job.error is not None} == {"site/gaps"}
    assert [job.frame.seq for job in done if job.camera_id == late.name] == [0, 1, 2]


async def test_the_wait_ends_even_if_a_partition_is_never_read_to_its_end(bench: Bench) -> None:
    camera = VideoCamera()
    key, _, late = (camera.frame() for _ in range(3))
    late.progress.read_s = lambda: -math.inf
    await bench.submit(key, late, passed=1)
    bench.step.poll(10 * SETTINGS.group_wait_s + 1)
    await bench.submit(passed=2)


async def test_a_unit_that_cannot_be_decrypted_fails_without_its_group(bench: Bench) -> None:
    camera, other = VideoCamera(), VideoCamera("site/other")
    key, damaged = camera.frame(), camera.frame()
    damaged.frame.pixels = bytes(len(damaged.frame.pixels))
    done = await bench.submit(key, damaged, other.frame(), passed=3)
    assert [type(job.error) for job in done if job.error is not None] == [BadPixelsError]
    assert bench.requested == [0]


async def test_a_repeat_passes_at_once_and_serves_later_frames(bench: Bench) -> None:
    camera = VideoCamera()
    key, repeat, fresh = camera.frame(), camera.frame(), camera.frame()
    key.verdict = repeat.verdict = VERDICT
    done = await bench.submit(key, repeat, passed=2)
    assert done == [key, repeat]
    done = await bench.submit(fresh, passed=3)
    assert fresh.planes is not None
    assert bench.count("restored") == 2
    assert bench.count("decoded") == 1


async def test_frames_of_a_revoked_partition_are_removed_and_others_go_on(bench: Bench) -> None:
    mine, other = VideoCamera(), VideoCamera("site/other")
    mine.frame()
    late, well = mine.frame(), other.frame()
    late.partition = 3
    await bench.submit(late, well, passed=1)
    assert list(bench.step.discard(3)) == [late]
    assert len(bench.step) == 0
    assert bench.last.jobs == [well]


async def test_units_from_repeats_alone_are_dropped_with_their_partition(bench: Bench) -> None:
    repeat = VideoCamera().frame()
    repeat.partition, repeat.verdict = 3, VERDICT
    await bench.submit(repeat, passed=1)
    bench.step.poll(0.0)
    assert bench.registry.get_sample_value("pointillist_video_held_bytes")
    bench.step.discard(3)
    bench.step.poll(0.0)
    assert bench.registry.get_sample_value("pointillist_video_held_bytes") == 0


async def test_the_memory_of_a_picture_counts_as_in_flight_until_the_job_is_finished(bench: Bench) -> None:
    message = VideoCamera().message()
    key = b"site/cam-0"
    record = ConsumerRecord("frames", 0, 0, 0, 0, key, message, None, len(key), len(message), ())
    job = bench.tracker.admit(record, 0.0)
    job.open(KEYS)
    await bench.submit(job, passed=1)
    assert bench.tracker.bytes == len(message) + 64 * 96 * 3 // 2
    bench.tracker.finish(job)
    assert bench.tracker.bytes == 0


async def test_frames_of_a_revoked_partition_leave_the_queue_while_no_process_can_be_started(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "MODULE", (str(tmp_path / "gone"), "-m"))
    for rebalances in range(4):
        camera = VideoCamera()
        jobs = [camera.frame() for _ in range(4)]
        for job in jobs:
            bench.step.submit(job)
        await until(lambda: bench.step.start_failure)
        if rebalances < 3:
            assert bench.step.discard(jobs[0].partition) == jobs
    (lane,) = bench.step._decoders._lanes.values()
    assert len(lane.pop_rest()) == 4
