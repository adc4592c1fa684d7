"""The step that lets frames wait for their key frame, with frames of a made-up profile."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from time import monotonic
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from processors.arrivals.job import FrameJob, open_record
from processors.arrivals.key_frames import read_span, write_note
from processors.arrivals.partitions import PartitionTracker
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Emitter
from processors.results.key_requests import KeyRequests
from processors.results.records import OutgoingRecord
from processors.settings import ProcessorSettings
from processors.steps.await_key_frame import AwaitKeyFrame
from processors.steps.chain import video_decoders
from schemas.errors import MalformedError, NoKeyFrameError, PointillistError
from schemas.messages.frame import Encoding
from schemas.pointillist_pb2 import LOSSLESS, RAW, KeyRequest
from tests.processors.tiny import (
    KEYS,
    FakeEmitter,
    FakeRecord,
    KeyedCamera,
    LastStep,
    VideoCamera,
    payload,
    verified_job,
)

pytestmark = pytest.mark.usefixtures("keyed_profile")

VERDICT = OutgoingRecord(b"site/cam-0", b"a verdict", [])


class Bench:
    """The step and its outputs."""

    def __init__(self, **changes: object) -> None:
        plain: dict[str, object] = {"kafka": "none", "bundle": Path("none")}
        self.registry = CollectorRegistry()
        self.posted = FakeEmitter()
        self.last = LastStep()
        settings = ProcessorSettings.model_validate(plain | changes)
        metrics = ProcessorMetrics(self.registry)
        self.decoders = video_decoders(settings)
        requests = KeyRequests(settings, cast(Emitter, self.posted), metrics)
        self.tracker = PartitionTracker(settings)
        self.step = AwaitKeyFrame(settings, KEYS, requests, self.decoders, self.tracker, metrics)
        self.step.next = self.last

    @property
    def ready(self) -> list[FrameJob]:
        return [job for job in self.last.jobs if not job.concluded]

    @property
    def failed(self) -> list[tuple[FrameJob, PointillistError]]:
        return [(job, job.error) for job in self.last.jobs if job.error is not None]

    @property
    def requested(self) -> list[tuple[bytes, int]]:
        """Cameras and sequence numbers of the requested key frames."""
        return [(each.key, KeyRequest.FromString(each.value or b"").seq) for each in self.posted.records]

    @property
    def recalls(self) -> list[tuple[int, int]]:
        return sorted(self.step.recall.wanted)

    def submit(self, *frames: FrameJob, now_s: float = 0.0, repeated: bool = False) -> None:
        for frame in frames:
            frame.arrived_s = now_s
            frame.verdict = VERDICT if repeated else None
            self.step.submit(frame)

    def seqs(self) -> list[int]:
        """Return the sequence numbers of the passed frames that depend on a key frame."""
        return [job.frame.seq for job in self.ready if job.frame.key_distance]

    def count(self, kind: str, outcome: str) -> float:
        return self.registry.get_sample_value(f"pointillist_{kind}_frames_total", {"outcome": outcome}) or 0.0


def test_a_frame_whose_key_frame_is_stored_passes_at_once() -> None:
    bench, camera = Bench(), KeyedCamera()
    key, frame = camera.frame(), camera.frame()
    bench.submit(key, frame)
    assert bench.ready == [key, frame]
    assert frame.key_frame is not None
    assert frame.key_frame.identity == key.identity
    assert key.key_frame is frame.key_frame
    assert bench.count("keyed", "with_key") == 1
    assert bench.count("key", "received") == 1


@pytest.mark.parametrize("encoding", [Encoding(profile=RAW), Encoding(probe_share=1.0, profile=LOSSLESS)])
def test_a_frame_without_a_key_frame_passes_and_is_not_stored(encoding: Encoding) -> None:
    bench = Bench()
    frame = verified_job(payload("site/cam-0", 5, encoding=encoding))
    bench.submit(frame)
    assert bench.ready == [frame]
    assert frame.key_frame is None
    assert len(bench.step.held) == 0


def test_frames_before_their_key_frame_wait_for_it() -> None:
    bench, camera = Bench(), KeyedCamera()
    key, first, second = camera.frame(), camera.frame(), camera.frame()
    bench.submit(second, first)
    bench.step.poll(0.4)
    assert len(bench.step) == 2
    assert not bench.ready
    bench.submit(key)
    assert bench.seqs() == [2, 1]
    assert len(bench.step) == 0
    assert not bench.requested
    assert not bench.failed


def test_the_wait_for_a_key_frame_restarts_once_a_decoding_process_can_be_started() -> None:
    bench, camera = Bench(key_wait_s=2.0), KeyedCamera()
    camera.frame()
    bench.submit(camera.frame())
    bench.decoders.stalled_s = 100.0
    bench.step.poll(101.9)
    assert not bench.failed
    bench.step.poll(102.1)
    assert len(bench.failed) == 1


def test_a_lost_key_frame_is_requested_once_and_frames_that_depend_on_it_fail_in_time() -> None:
    bench, camera = Bench(key_wait_s=2.0), KeyedCamera()
    camera.frame()
    first, second, late = camera.frame(), camera.frame(), camera.frame()
    bench.submit(first)
    bench.submit(second, now_s=0.3)
    bench.step.poll(0.6)
    bench.step.poll(1.1)
    assert bench.requested == [(b"site/cam-0", 0)]
    bench.step.poll(2.1)
    assert [frame for frame, _ in bench.failed] == [first, second]
    assert all(isinstance(error, NoKeyFrameError) and "cam-0" in str(error) for _, error in bench.failed)
    bench.submit(late, now_s=2.7)  # the key frame is known to be missing
    assert bench.failed[-1][0] is late
    assert bench.count("keyed", "without_key") == 3
    assert bench.count("key", "requested") == len(bench.requested) == 2


def test_the_wait_counts_in_full_only_without_unread_records_or_if_waiting_frames_block_reading() -> None:
    bench, camera = Bench(key_wait_s=2.0), KeyedCamera()
    camera.frame()
    first = camera.frame()
    first.progress.read_s = lambda: 0.0
    bench.submit(first)
    bench.step.poll(2.1)
    assert not bench.failed  # the key frame may lie unread in Kafka
    bench.tracker.frames, bench.tracker.bytes = 3, 2**40
    bench.tracker.blocked("another step", Counter([5]))
    bench.step.poll(2.1)
    assert not bench.failed  # another frame is still processed, and its room will be released
    bench.tracker.blocked("another step", Counter([5, 5]))
    bench.step.poll(2.1)
    assert [frame for frame, _ in bench.failed] == [first]


def test_after_one_round_trip_the_camera_continues_with_a_new_key_frame() -> None:
    bench, camera = Bench(), KeyedCamera()
    camera.frame()
    bench.submit(camera.frame())
    bench.step.poll(5.0)
    camera.renew()
    bench.submit(*(camera.frame() for _ in range(4)), now_s=5.0)
    assert bench.seqs() == [3, 4, 5]
    assert len(bench.failed) == 1


def test_a_key_frame_that_arrives_after_its_frames_have_failed_is_stored() -> None:
    bench, camera = Bench(), KeyedCamera()
    key = camera.frame()
    bench.submit(camera.frame())
    bench.step.poll(5.0)
    bench.submit(key, camera.frame(), now_s=5.0)
    assert bench.seqs() == [2]


def test_the_number_of_waiting_frames_is_bounded_and_the_oldest_fail() -> None:
    bench = Bench(key_wait_frames=4)
    for number in range(6):
        camera = KeyedCamera(f"site/cam-{number}")
        camera.frame()
        bench.submit(camera.frame(), now_s=float(number))
    assert len(bench.step) == 4
    assert [frame.camera_id for frame, _ in bench.failed] == ["site/cam-0", "site/cam-1"]


def test_a_camera_with_many_waiting_frames_ends_the_wait_of_no_other() -> None:
    bench, door, gate = Bench(key_wait_frames=4), KeyedCamera("site/door"), KeyedCamera("site/gate")
    key = door.frame()
    bench.submit(door.frame())
    gate.frame()
    bench.submit(*(gate.frame() for _ in range(4)))
    assert {frame.camera_id for frame, _ in bench.failed} == {"site/gate"}
    bench.submit(key)
    assert [job.camera_id for job in bench.ready] == ["site/door", "site/door"]


def test_a_dropped_key_frame_is_read_back_and_its_frames_neither_expire_nor_count() -> None:
    bench, first, second = Bench(key_cache_bytes=1, key_wait_frames=1), KeyedCamera(), KeyedCamera("site/other")
    message = first.message()
    bench.submit(verified_job(message, first.name, 40), second.frame())
    bench.submit(*(first.frame() for _ in range(3)))
    bench.step.poll(100.0)
    assert bench.recalls == [(0, 40)]
    assert not bench.failed
    bench.step.recalled((0, 40), FakeRecord(message, first.name.encode(), 40))
    assert bench.seqs() == [1, 2, 3]
    assert bench.count("key", "recalled") == 1


@pytest.mark.parametrize("record", [None, FakeRecord(b"rubbish"), FakeRecord(KeyedCamera().message(), b"site/else")])
def test_a_key_frame_that_kafka_no_longer_has_is_requested(record: FakeRecord | None) -> None:
    bench, camera, other = Bench(key_cache_bytes=1), KeyedCamera(), KeyedCamera("site/other")
    bench.submit(camera.frame(), other.frame())
    frame = camera.frame()
    bench.submit(frame)
    bench.step.recalled((0, 0), record)
    assert bench.requested == [(b"site/cam-0", 0)]
    assert isinstance(bench.failed[0][1], NoKeyFrameError)


def test_frames_that_wait_for_a_recall_of_an_earlier_assignment_fail_with_it() -> None:
    bench, camera, other = Bench(key_cache_bytes=1), KeyedCamera(), KeyedCamera("site/other")
    bench.submit(verified_job(camera.message(), camera.name, 40), other.frame())
    bench.step.recall_partition(0, write_note([40]), lambda: None)
    bench.step.discard(0)  # revoked, and assigned again without a note
    frame = camera.frame()
    bench.submit(frame)
    bench.step.recalled((0, 40), None)
    assert [job for job, _ in bench.failed] == [frame]
    assert len(bench.step) == 0


def test_a_partition_begins_when_all_key_frames_of_its_note_are_read_back() -> None:
    bench, camera = Bench(), KeyedCamera()
    message, done = camera.message(), []
    assert not bench.step.recall_partition(0, "", lambda: done.append(0))
    assert bench.step.recall_partition(0, write_note([3, 40]), lambda: done.append(1))
    assert bench.recalls == [(0, 3), (0, 40)]
    bench.step.recalled((0, 3), None)
    assert not done
    bench.step.recalled((0, 40), FakeRecord(message, camera.name.encode(), 40))
    assert done == [1]
    bench.submit(camera.frame())
    assert bench.seqs() == [1]
    assert not bench.step.recall_partition(0, write_note([40]), lambda: done.append(2))


def test_replayed_key_frames_displace_nothing() -> None:
    bench, camera = Bench(), KeyedCamera()
    old = [camera.frame()]
    for _ in range(9):
        camera.renew()
        old.append(camera.frame())
    bench.submit(old[-1])
    bench.submit(*old[:-1], repeated=True)
    bench.submit(camera.frame())
    assert bench.seqs() == [10]
    assert len(bench.step.held) == 1


def test_a_repeated_key_frame_for_which_frames_wait_is_stored_and_keeps_its_verdict() -> None:
    bench, camera = Bench(), KeyedCamera()
    key, frame = camera.frame(), camera.frame()
    bench.submit(frame)
    bench.submit(key, repeated=True)
    assert bench.ready == [frame]
    assert bench.last.jobs == [frame, key]


@pytest.mark.parametrize(("drop", "size"), [(8, 32), (16, 40)])
def test_a_frame_that_does_not_fit_its_key_frame_fails(drop: int, size: int) -> None:
    bench, camera, odd = Bench(), KeyedCamera(), KeyedCamera(drop=drop, size=size)
    bench.submit(camera.frame())
    odd.frame()
    bench.submit(odd.frame())
    assert isinstance(bench.failed[0][1], MalformedError)
    assert not bench.seqs()


def test_the_key_frame_of_another_boot_or_camera_does_not_count() -> None:
    bench, camera = Bench(), KeyedCamera()
    camera.frame()
    bench.submit(KeyedCamera(boot_id=8).frame(), KeyedCamera("site/cam-1").frame())
    bench.submit(camera.frame())
    assert not bench.seqs()


def test_waiting_frames_of_a_revoked_partition_are_removed() -> None:
    bench, camera = Bench(), KeyedCamera()
    key, mine, other = camera.frame(), camera.frame(), camera.frame()
    mine.partition = 3
    bench.submit(mine, other)
    assert bench.step.discard(3) == [mine]
    bench.submit(key)
    assert bench.seqs() == [other.frame.seq]


def test_a_partition_begins_when_the_frames_of_its_open_groups_are_read_back() -> None:
    bench, camera, done = Bench(), VideoCamera(), []
    messages = [camera.message() for _ in range(4)]
    assert bench.step.recall_partition(0, write_note([5, 40], range(40, 44)), lambda: done.append(1))
    assert bench.recalls == [(0, 5)]  # the span holds the other
    assert bench.step.recall.spans == {0: range(40, 44)}
    bench.step.recalled((0, 5), None)
    for offset, message in enumerate([*messages[:3], b"rubbish"], 40):
        bench.step.restored(0, FakeRecord(message, camera.name.encode(), offset))
    assert not done
    bench.step.restored(0, None)
    assert done == [1]
    assert bench.decoders.counts == {"restored": 3}
    assert read_span(bench.step.note(0, 44)) == range(40, 44)
    bench.submit(verified_job(messages[3], camera.name, 44))
    assert bench.seqs() == [3]


def test_a_frame_that_comes_long_after_its_key_frame_adds_no_old_span_to_the_note() -> None:
    bench, camera = Bench(), VideoCamera()
    key, late = (FakeRecord(camera.message(), camera.name.encode(), offset) for offset in (40, 90_000))
    late.timestamp = 600_000
    bench.step.recall_partition(0, write_note([40]), lambda: None)
    bench.step.recalled((0, 40), key)
    bench.submit(open_record(late, KEYS), now_s=monotonic())
    assert bench.seqs() == [1]
    assert not read_span(bench.step.note(0, 90_001))


def test_the_units_that_were_read_back_for_a_revoked_partition_are_dropped() -> None:
    bench, camera, done = Bench(), VideoCamera(), []
    records = [FakeRecord(camera.message(), camera.name.encode(), 40 + number) for number in range(3)]
    bench.step.recall_partition(0, write_note([40], range(40, 43)), lambda: done.append(1))
    bench.step.restored(0, records[0])
    bench.step.restored(0, records[1])
    assert bench.decoders.held_bytes > 0
    assert bench.step.discard(0) == []
    bench.step.restored(0, records[2])  # it was being read
    bench.step.restored(0, None)
    assert bench.decoders.held_bytes == 0
    assert not bench.step.recall.spans
    assert not done
