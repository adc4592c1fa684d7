"""A processor's output: verdicts and dead letters as Kafka records with CloudEvents headers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from processors.arrivals.job import FrameJob
from schemas.clock import unix_ms
from schemas.errors import WireError
from schemas.keys.keys import KeyRing
from schemas.messages.cloudevents import PROCESSORS, event_headers
from schemas.messages.dead_letters import dead_letter
from schemas.messages.frame import frame_message, sign_message
from schemas.messages.server_messages import seal_difference, seal_pictures, sign_statement
from schemas.pointillist_pb2 import (
    CHECKED,
    NOT_PROBED,
    SHED,
    Answer,
    Candidate,
    Comparison,
    DeadLetter,
    KeyRequest,
    Refusal,
    Rollout,
    ServedModel,
    Verdict,
)
from schemas.runtime import trace
from schemas.transport.kafka.sender import Headers

REFUSAL_CHARACTERS: Final = 200
"""Maximum length of the reason in a refusal to a camera."""


@dataclass(slots=True)
class OutgoingRecord:
    """A record for Kafka, and the job that is finished when Kafka holds it."""

    key: bytes
    value: bytes | None
    """None removes the key from a compacted topic."""
    headers: Headers
    job: FrameJob | None = None
    smaller: bytes | None = None
    """The value to send if Kafka rejects `value` as too large."""


def verdict_record(
    keys: KeyRing, job: FrameJob, preview: bytes = b"", evidence: bytes = b"", as_sent: bytes = b""
) -> OutgoingRecord:
    """Return the verdict on a classified frame, signed under `keys`, its pictures sealed."""
    frame, finding = job.frame, job.finding
    answer = job.model.answer(job.scores)
    verdict = Verdict(
        boot_id=frame.boot_id,
        seq=frame.seq,
        captured_ms=frame.captured_ms,
        processed_ms=unix_ms(),
        class_id=job.class_id,
        class_name=answer.name,
        confidence=answer.confidence,
        class_group=answer.group,
        group_confidence=answer.group_confidence,
        best=[Candidate(class_name=name, confidence=confidence) for name, confidence in answer.best],
        model_id=job.model.model_id,
        policy=job.model.policy,
        truth=frame.truth,
        width=frame.width,
        height=frame.height,
        channels=frame.channels,
        dropped_per_block=frame.dropped_per_block,
        whole=frame.whole,
        profile=frame.profile,
        frame_bytes=job.frame_bytes,
        pixel_bytes=len(frame.pixels) if job.pixel_bytes is None else job.pixel_bytes,
        strip=NOT_PROBED,
        changed=job.changed,
    )
    if finding is not None:
        verdict.threshold_bits = finding.threshold_bits
        if finding.entropy_bits is None:
            verdict.strip = SHED
        else:
            verdict.strip = CHECKED
            verdict.entropy_bits = finding.entropy_bits
            verdict.flagged = finding.flagged
            verdict.p_value, verdict.p_value_threshold = finding.p_value, finding.p_value_threshold
            if finding.statistic:
                verdict.MergeFrom(Verdict(statistic=finding.statistic.upper()))
            if finding.scene is not None:
                verdict.scene = finding.scene
    if job.certified is not None:
        verdict.certified_patch, verdict.certified, windows = job.certified
        for place, dependence in windows:
            verdict.windows.add(**place._asdict(), dependence=dependence)
    smaller = None
    if preview or evidence or as_sent:
        smaller = sign_statement(keys, job.camera_id, verdict)
        verdict.preview = preview
        verdict.evidence = evidence
        verdict.as_sent = as_sent
        seal_pictures(verdict, job.camera_id, keys)
    headers = event_headers(PROCESSORS, Verdict, str(job.identity))
    if job.traceparent is not None:
        headers.append((trace.TRACEPARENT, job.traceparent))
    value = sign_statement(keys, job.camera_id, verdict)
    return OutgoingRecord(job.camera_id.encode(), value, headers, job, smaller)


def answer_of(job: FrameJob) -> Answer:
    """Return the answer to a frame by the model that classified it."""
    finding = job.finding
    return Answer(
        class_id=job.class_id,
        class_name=job.model.answer(job.scores).name,
        confidence=job.confidence,
        checked=finding is not None and finding.entropy_bits is not None,
        flagged=finding is not None and finding.flagged,
    )


def comparison_record(
    keys: KeyRing, job: FrameJob, rollout: Rollout, live: Answer, candidate: Answer, picture: bytes
) -> OutgoingRecord:
    """Return the answers of both models to a frame, signed under `keys`, the picture (JPEG or empty) sealed."""
    frame = job.frame
    comparison = Comparison(
        boot_id=frame.boot_id,
        seq=frame.seq,
        captured_ms=frame.captured_ms,
        begun_ms=rollout.begun_ms,
        digest=rollout.candidate.digest,
        slot=rollout.slot,
        truth=frame.truth,
        live=live,
        candidate=candidate,
        picture=picture,
    )
    seal_difference(comparison, job.camera_id, keys)
    headers = event_headers(PROCESSORS, Comparison, f"{job.identity}/{rollout.begun_ms}")
    return OutgoingRecord(job.camera_id.encode(), sign_statement(keys, job.camera_id, comparison), headers)


def key_request_record(job: FrameJob) -> OutgoingRecord:
    """Return the request, forwarded by bridges, that the camera sends a new key frame in place of this frame's."""
    _, boot_id, seq = job.key_identity
    request = sign_message(job.key, KeyRequest(boot_id=boot_id, seq=seq))
    headers = event_headers(PROCESSORS, KeyRequest, f"{boot_id:016x}/key/{seq}/{time.time_ns()}")
    return OutgoingRecord(job.camera_id.encode(), request, headers)


def refusal_record(job: FrameJob) -> OutgoingRecord:
    """Return the event that informs a camera and the recorder about a verified frame that failed with a WireError."""
    frame, error = job.frame, job.error
    assert isinstance(error, WireError)
    refusal = Refusal(
        boot_id=frame.boot_id,
        seq=frame.seq,
        reason=error.reason,
        detail=str(error)[:REFUSAL_CHARACTERS],
        refused_ms=unix_ms(),
    )
    headers = event_headers(PROCESSORS, Refusal, f"{job.identity}/refused")
    return OutgoingRecord(job.camera_id.encode(), sign_message(job.key, refusal), headers)


def served_record(key: bytes, served: ServedModel | None) -> OutgoingRecord:
    """Return the record of the model that a processor serves; `served` is None if it no longer serves one."""
    headers = event_headers(PROCESSORS, ServedModel, f"{key.decode()}/{time.time_ns()}")
    return OutgoingRecord(key, served.SerializeToString() if served is not None else None, headers)


def dead_letter_record(keys: KeyRing, topic: str, job: FrameJob) -> OutgoingRecord:
    """Return the dead letter of a failed job; the pixels of a verified frame stay sealed."""
    record, error = job.record, job.error
    reason = error.reason if isinstance(error, WireError) else "stage"
    if record is None:
        key, payload = job.camera_id.encode(), frame_message(job.frame)
        camera_id = str(job.camera_id)
    else:
        key, payload = record.key or b"", record.value or b""
        camera_id = key.decode("utf-8", "replace")[:140]
    origin = topic, job.partition, job.offset
    letter = dead_letter(job.stage, reason, str(error), origin, camera_id, payload, unix_ms(), job.frame_bytes)
    if record is None:
        letter.verified, letter.boot_id, letter.seq = True, job.frame.boot_id, job.frame.seq
    event_id = f"{letter.origin_topic}/{letter.origin_partition}/{letter.origin_offset}"
    headers = event_headers(PROCESSORS, DeadLetter, event_id)
    return OutgoingRecord(key[:255], sign_statement(keys, letter.camera_id, letter), headers, job)
