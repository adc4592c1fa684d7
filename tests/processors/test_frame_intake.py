"""The intake of a record: its key, its fields and its span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from prometheus_client import CollectorRegistry

from processors.arrivals.job import FrameJob, open_record
from processors.arrivals.progress import PartitionProgress
from processors.metrics import ProcessorMetrics
from processors.results.records import dead_letter_record
from processors.settings import ProcessorSettings
from processors.steps.step import Step
from processors.steps.validate import Validate
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, KeyRing
from schemas.messages.frame import Encoding, encode_frame
from schemas.pointillist_pb2 import DeadLetter
from schemas.runtime import trace
from schemas.runtime.spans import Span, parsed, root

CAMERA = CameraId("site/door")
SENT = root(f"{CAMERA}/0000000000000007/5", sampled=True)
TRACE = SENT.header()


@dataclass
class Record:
    value: bytes | None
    partition: int = 3
    offset: int = 9
    key: bytes | None = CAMERA.encode()
    headers: Sequence[tuple[str, bytes]] = (("ce_id", b"x"), ("traceparent", TRACE))
    timestamp: int = 0


class CountingRing(KeyRing):
    lookups = 0

    def key(self, camera_id: CameraId, generation: int) -> CameraKey:
        self.lookups += 1
        return super().key(camera_id, generation)


def test_a_record_is_opened_with_one_lookup_of_the_key() -> None:
    keys = CountingRing(b"a fleet secret of tests")
    key = KeyRing(b"a fleet secret of tests").key(CAMERA, 2)
    payload = encode_frame(key, 7, 5, 1000, np.zeros((8, 16, 3), np.uint8), Encoding(16))
    job = open_record(Record(payload), keys)
    assert keys.lookups == 1
    assert job.key.export() == key.export()
    assert (job.identity, job.shape, job.frame_bytes) == ((CAMERA, 7, 5), (8, 16, 3), len(payload))
    assert (job.partition, job.offset, job.traceparent) == (3, 9, TRACE)


def test_a_frame_whose_key_was_revoked_while_it_waited_in_kafka_has_a_verified_dead_letter() -> None:
    keys = KeyRing(b"a fleet secret of tests")
    key = keys.key(CAMERA, 0)
    payload = encode_frame(key, 7, 5, 1000, np.zeros((8, 16, 3), np.uint8), Encoding(16))
    keys.accept_from({CAMERA: 1})
    step = Validate(ProcessorSettings(), keys, ProcessorMetrics(CollectorRegistry()))
    step.next = EmptyStep()

    def letter_of(value: bytes) -> DeadLetter:
        job = FrameJob.of(Record(value), PartitionProgress(), 0.0)
        step.submit(job)
        return DeadLetter.FromString(dead_letter_record(keys, "frames", job).value or b"")

    letter = letter_of(payload)
    assert (letter.reason, letter.verified, letter.camera_id) == ("revoked_key", True, CAMERA)
    assert (letter.boot_id, letter.seq, letter.payload) == (7, 5, payload)
    assert not letter_of(payload[:-1] + bytes([payload[-1] ^ 1])).verified


class EmptyStep(Step):
    """A last step that does nothing."""

    def submit(self, job: FrameJob) -> None:
        """Do nothing with the job."""


def test_with_spans_a_sampled_frame_carries_the_processors_span_to_its_result() -> None:
    keys, exported = KeyRing(b"a fleet secret of tests"), list[Span]()
    payload = encode_frame(keys.key(CAMERA, 2), 7, 5, 1000, np.zeros((8, 16, 3), np.uint8), Encoding(16))
    step = Validate(ProcessorSettings(), keys, ProcessorMetrics(CollectorRegistry()))
    step.next = EmptyStep()

    def validated(header: bytes) -> FrameJob:
        job = FrameJob.of(Record(payload, headers=[("traceparent", header)]), PartitionProgress(), 0.0)
        step.submit(job)
        assert job.error is None
        return job

    trace.begin_spans(exported.extend)
    try:
        sampled = validated(TRACE)
        open_record(Record(payload), keys)  # as when a key frame is read again
        trace.stamp("delivered", sampled.identity)
        unsampled = root(str(sampled.identity)).header()
        assert validated(unsampled).traceparent == unsampled
        assert validated(root("site/other/0000000000000007/5", sampled=True).header()).traceparent is None
        assert validated(b"00-1-2-01").traceparent is None
    finally:
        trace.end_spans()
    (span,) = exported
    assert (span.name, span.parent_id) == ("processor", SENT.span_id)
    assert sampled.traceparent is not None
    assert parsed(sampled.traceparent) == SENT._replace(span_id=span.span_id)
