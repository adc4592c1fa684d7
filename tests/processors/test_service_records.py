"""The records of a processor: previews, evidence, verdicts and dead letters, also with a real Kafka."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from PIL import Image

from infra.local.kafka import Kafka
from processors.arrivals.job import FrameJob, StripFinding
from processors.arrivals.progress import PartitionProgress
from processors.bundle.model_toml import Scores
from processors.bundle.strip_table import DISAGREEMENT, ENTROPY, SCALED_NORMS, TYPICALITY
from processors.results.delivery import Emitter
from processors.results.preview import MAX_EVIDENCE_BYTES, MAX_PREVIEW_BYTES, evidence_png, preview_jpeg
from processors.results.records import OutgoingRecord, dead_letter_record, verdict_record
from schemas.errors import MalformedError
from schemas.limits import DEAD_LETTER_PAYLOAD_BYTES
from schemas.pointillist_pb2 import (
    CHECKED,
    NO_STATISTIC,
    NOT_PROBED,
    SHED,
    DeadLetter,
    Statistic,
    Verdict,
)
from tests.conftest import TopicFactory
from tests.processors.tiny import CLASSES, KEYS, SERVING_MODEL, FakeRecord, payload, picture, verdict_of, verified_job
from tests.waiting import PATIENCE_S, running


def job(seq: int, class_id: int = 0, confidence: float = 0.5, finding: StripFinding | None = None) -> FrameJob:
    """Return the job of a classified frame."""
    classified = verified_job(payload("site/cam-0", seq))
    classified.model, classified.scores, classified.finding = SERVING_MODEL, Scores(class_id, confidence), finding
    return classified


def seq_of(record: OutgoingRecord) -> int:
    assert record.job is not None
    return record.job.frame.seq


@pytest.mark.parametrize("channels", [1, 3])
def test_a_preview_has_the_frames_own_size(channels: int) -> None:
    shown = Image.open(io.BytesIO(preview_jpeg(picture(0, 50, 77, channels))))
    assert shown.format == "JPEG"
    assert shown.size == (77, 50)
    assert len(shown.getbands()) == channels


def test_a_preview_of_noise_stays_within_its_bound() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1600, 1600, 3), dtype=np.uint8)
    data = preview_jpeg(noise)
    assert 0 < len(data) <= MAX_PREVIEW_BYTES


@pytest.mark.parametrize("channels", [1, 3])
def test_small_evidence_is_lossless(channels: int) -> None:
    shown = picture(0, 50, 77, channels)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(evidence_png(shown)))), shown.squeeze())


def test_large_evidence_is_scaled_down() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 800, 3), dtype=np.uint8)
    data = evidence_png(noise)
    assert len(data) <= MAX_EVIDENCE_BYTES
    assert Image.open(io.BytesIO(data)).size == (400, 600)


@pytest.mark.parametrize(
    ("finding", "strip", "flagged"),
    [
        (None, NOT_PROBED, False),
        (StripFinding(None, 0.5), SHED, False),
        (StripFinding(0.4, 0.5), CHECKED, True),
        (StripFinding(0.6, 0.5), CHECKED, False),
        (StripFinding(0.6, 0.5, 4, 0.002, 0.003, DISAGREEMENT), CHECKED, True),
        (StripFinding(0.4, 0.5, 4, 0.004, 0.003, ENTROPY), CHECKED, False),
        (StripFinding(0.4, 0.5, 4, 0.003, 0.003, SCALED_NORMS), CHECKED, False),
        (StripFinding(None, 0.5, 0, 0.002, 0.003, TYPICALITY), SHED, False),
        (StripFinding(0.6, 0.5, 4, 0.002, 0.003, DISAGREEMENT, 0), CHECKED, True),
    ],
)
def test_a_verdict_has_the_finding_of_strip(finding: StripFinding | None, strip: int, flagged: bool) -> None:
    record = verdict_record(KEYS, job(3, 1, 0.75, finding))
    verdict = verdict_of(record)
    assert (verdict.strip, verdict.flagged) == (strip, flagged)
    if finding is not None:
        shed = finding.entropy_bits is None
        found = verdict.p_value, verdict.p_value_threshold, verdict.statistic
        wanted = (
            finding.p_value,
            finding.p_value_threshold,
            Statistic.Value(finding.statistic.upper() or "NO_STATISTIC"),
        )
        assert found == ((0, 0, NO_STATISTIC) if shed else pytest.approx(wanted))
        assert verdict.HasField("scene") == (finding.scene is not None)
    assert (verdict.seq, verdict.class_name, verdict.confidence) == (3, CLASSES[1], 0.75)
    assert dict(record.headers)["ce_type"] == b"pointillist.v1.Verdict"
    assert dict(record.headers)["ce_id"] == b"site/cam-0/0000000000000007/3"


def test_a_dead_letter_keeps_the_beginning_of_the_rejected_payload() -> None:
    rejected = FrameJob.of(FakeRecord(b"x" * 10_000, b"\xff", 17, 3), PartitionProgress(), 0.0)
    rejected.fail("validate", MalformedError("expected another form"))
    record = dead_letter_record(KEYS, "frames", rejected)
    assert record.value is not None
    letter = DeadLetter.FromString(record.value)
    assert (letter.origin_topic, letter.origin_partition, letter.origin_offset) == ("frames", 3, 17)
    assert letter.payload == b"x" * DEAD_LETTER_PAYLOAD_BYTES
    assert letter.payload_bytes == 10_000
    assert (letter.reason, letter.error, letter.verified) == ("malformed", "expected another form", False)


@pytest.mark.brokers
async def test_a_verdict_too_large_for_kafka_is_sent_without_its_pictures(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics(config={"max.message.bytes": "4000"})
    done: list[int] = []
    records = [verdict_record(KEYS, job(seq), b"p" * 5000 * (seq % 2)) for seq in range(20)]
    emitter = Emitter(kafka.bootstrap, lambda ok, detail: None)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await emitter.send(topic, records, lambda record: done.append(seq_of(record)))
            assert sorted(done) == list(range(20))
            consumer.assign([TopicPartition(topic, 0)])
            seen = {Verdict.FromString((await consumer.getone()).value).seq for _ in range(20)}
            assert seen == set(range(20))
    finally:
        await consumer.stop()
        await emitter.close(5.0)


@pytest.mark.brokers
async def test_a_verdict_larger_than_a_segment_of_kafka_is_sent_without_its_pictures(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics(config={"segment.bytes": str(2**20)})
    record = verdict_record(KEYS, job(1), b"", b"e" * 2**21)
    emitter = Emitter(kafka.bootstrap, lambda ok, detail: None)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await emitter.send(topic, [record])
    finally:
        await emitter.close(5.0)
    assert record.value is not None
    assert not Verdict.FromString(record.value).evidence


@pytest.mark.brokers
async def test_the_emitter_is_unhealthy_while_one_topic_rejects_all_records(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    rejecting, accepting = await kafka_topics(config={"max.message.bytes": "10"}), await kafka_topics()
    reports: list[tuple[bool, str]] = []
    done: list[str] = []
    emitter = Emitter(kafka.bootstrap, lambda ok, detail: reports.append((ok, detail)))

    stuck = emitter.send(rejecting, [verdict_record(KEYS, job(1))], lambda _: done.append("rejected"))
    try:
        async with running(stuck):
            async with asyncio.timeout(PATIENCE_S):
                while len(reports) < 2:
                    await asyncio.sleep(0.01)
                reports.clear()
                await emitter.send(accepting, [verdict_record(KEYS, job(1))], lambda _: done.append("accepted"))
            assert done == ["accepted"]
            assert [ok for ok, _ in reports if ok] == []
            assert rejecting in next(detail for _, detail in reports if detail)
    finally:
        await emitter.close(5.0)


@pytest.mark.brokers
async def test_batches_that_wait_during_a_hang_of_kafka_use_the_same_producer(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic = await kafka_topics()
    done: list[int] = []
    reports: list[tuple[bool, str]] = []
    emitter = Emitter(kafka.bootstrap, lambda ok, detail: reports.append((ok, detail)))

    async def send(seq: int) -> None:
        await emitter.send(topic, [verdict_record(KEYS, job(seq))], lambda _: done.append(seq))

    try:
        await send(0)
        kafka.pause()
        sending = [asyncio.create_task(send(seq)) for seq in range(1, 20)]
        # Long enough for a hanging node to be missed, and far below the time limit of a batch.
        await asyncio.sleep(2.0)
        kafka.resume()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*sending)
    finally:
        kafka.resume()
        await emitter.close(5.0)
    assert done == list(range(20))
    assert [detail for ok, detail in reports if not ok] == []
