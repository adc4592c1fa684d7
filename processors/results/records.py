"""What a processor writes: verdicts and dead letters as Kafka records with CloudEvents headers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from processors.arrivals.frames import TRACEPARENT, TakenFrame
from schemas.errors import PointillistError, WireError
from schemas.frame import sign_message
from schemas.limits import DEAD_LETTER_PAYLOAD_BYTES
from schemas.pointillist_pb2 import CHECKED, NOT_PROBED, SHED, DeadLetter, KeyRequest, ServedModel, Verdict

Headers = list[tuple[str, bytes]]

_SOURCE: Final = b"pointillist/processors"
_FIXED: Final[Headers] = [
    ("ce_specversion", b"1.0"),
    ("ce_source", _SOURCE),
    ("content-type", b"application/protobuf"),
]
_VERDICT: Final[Headers] = [*_FIXED, ("ce_type", b"pointillist.v1.Verdict")]
_DEAD_LETTER: Final[Headers] = [*_FIXED, ("ce_type", b"pointillist.v1.DeadLetter")]
_KEY_REQUEST: Final[Headers] = [*_FIXED, ("ce_type", b"pointillist.v1.KeyRequest")]
_SERVED: Final[Headers] = [*_FIXED, ("ce_type", b"pointillist.v1.ServedModel")]
_ERROR_LENGTH: Final = 500


@dataclass(slots=True)
class Outgoing:
    """A record to send, and what is to happen when Kafka holds it."""

    key: bytes
    value: bytes | None
    """None removes the key from a compacted topic."""
    headers: Headers
    done: Callable[[], None]
    smaller: bytes | None = None
    """The value to send when Kafka says that `value` is too large."""


@dataclass(frozen=True, slots=True)
class StripFinding:
    """What STRIP said about one frame, after `passes` overlays. `entropy_bits` is None when it was shed."""

    entropy_bits: float | None
    threshold_bits: float
    passes: int = 0

    @property
    def flagged(self) -> bool:
        """Whether the frame is suspect."""
        return self.entropy_bits is not None and self.entropy_bits < self.threshold_bits


@dataclass(frozen=True, slots=True)
class Model:
    """What every verdict says of the model."""

    model_id: str
    policy: str
    classes: tuple[str, ...]


def verdict_record(
    taken: TakenFrame,
    model: Model,
    class_id: int,
    confidence: float,
    finding: StripFinding | None,
    done: Callable[[], None],
    preview: bytes = b"",
    evidence: bytes = b"",
    *,
    composed: bool = False,
) -> Outgoing:
    """The verdict on a frame; `finding` is None when STRIP had nothing to look at, which may have been `composed`."""
    frame = taken.frame
    verdict = Verdict(
        boot_id=frame.boot_id,
        seq=frame.seq,
        captured_ms=frame.captured_ms,
        processed_ms=time.time_ns() // 1_000_000,
        class_id=class_id,
        class_name=model.classes[class_id],
        confidence=confidence,
        model_id=model.model_id,
        policy=model.policy,
        truth=frame.truth,
        width=frame.width,
        height=frame.height,
        channels=frame.channels,
        dropped_per_block=frame.dropped_per_block,
        whole=frame.whole,
        profile=frame.profile,
        frame_bytes=taken.frame_bytes,
        pixel_bytes=len(frame.pixels),
        strip=NOT_PROBED,
    )
    if finding is not None:
        verdict.threshold_bits = finding.threshold_bits
        if finding.entropy_bits is None:
            verdict.strip = SHED
        else:
            verdict.strip = CHECKED
            verdict.entropy_bits = finding.entropy_bits
            verdict.flagged = finding.flagged
            verdict.composed = composed
    smaller = None
    if preview or evidence:
        smaller = verdict.SerializeToString()
        verdict.preview = preview
        verdict.evidence = evidence
    headers = [*_VERDICT, ("ce_id", str(taken.identity).encode())]
    if taken.traceparent is not None:
        headers.append((TRACEPARENT, taken.traceparent))
    return Outgoing(taken.camera_id.encode(), verdict.SerializeToString(), headers, done, smaller)


def key_request_record(taken: TakenFrame, done: Callable[[], None]) -> Outgoing:
    """The event by which the bridges ask a camera for a new key frame instead of the one that `taken` names."""
    frame = taken.frame
    seq = frame.seq - frame.key_distance
    request = sign_message(taken.key, KeyRequest(boot_id=frame.boot_id, seq=seq))
    headers = [*_KEY_REQUEST, ("ce_id", f"{frame.boot_id:016x}/key/{seq}/{time.time_ns()}".encode())]
    return Outgoing(taken.camera_id.encode(), request, headers, done)


def served_record(key: bytes, served: ServedModel | None) -> Outgoing:
    """Which model a processor serves; None when it serves none any more."""
    headers = [*_SERVED, ("ce_id", key + b"/" + str(time.time_ns()).encode())]
    return Outgoing(key, served.SerializeToString() if served is not None else None, headers, _nobody_waits)


def _nobody_waits() -> None:
    """What there is to do when Kafka holds a record that nothing depends on."""


def refused_record(
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    payload: bytes,
    error: WireError,
    done: Callable[[], None],
) -> Outgoing:
    """The dead letter of a record that is no verified frame."""
    letter = DeadLetter(
        stage="intake",
        reason=error.reason,
        camera_id=(key or b"").decode("utf-8", "replace")[:140],
        payload=payload[:DEAD_LETTER_PAYLOAD_BYTES],
        payload_bytes=len(payload),
    )
    return _letter(letter, topic, partition, offset, key or b"", error, done)


def failed_record(
    topic: str, taken: TakenFrame, stage: str, error: PointillistError, done: Callable[[], None]
) -> Outgoing:
    """The dead letter of a verified frame that a stage cannot take."""
    frame = taken.frame
    letter = DeadLetter(
        stage=stage,
        reason=error.reason if isinstance(error, WireError) else "stage",
        camera_id=taken.camera_id,
        verified=True,
        boot_id=frame.boot_id,
        seq=frame.seq,
        payload=frame.SerializeToString()[:DEAD_LETTER_PAYLOAD_BYTES],
        payload_bytes=taken.frame_bytes,
    )
    return _letter(letter, topic, taken.partition, taken.offset, taken.camera_id.encode(), error, done)


def _letter(
    letter: DeadLetter,
    topic: str,
    partition: int,
    offset: int,
    key: bytes,
    error: PointillistError,
    done: Callable[[], None],
) -> Outgoing:
    letter.origin_topic = topic
    letter.origin_partition = partition
    letter.origin_offset = offset
    letter.error = str(error)[:_ERROR_LENGTH]
    letter.at_ms = time.time_ns() // 1_000_000
    headers = [*_DEAD_LETTER, ("ce_id", f"{topic}/{partition}/{offset}".encode())]
    return Outgoing(key[:255], letter.SerializeToString(), headers, done)
