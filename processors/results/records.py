"""A processor's output: verdicts and dead letters as Kafka records with CloudEvents headers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from processors.arrivals.frames import TRACEPARENT, TakenFrame
from processors.device.loaded_model import Model
from processors.device.probes import StripFinding
from schemas.errors import PointillistError, WireError
from schemas.keys.keys import KeyRing
from schemas.messages.cloudevents import PROCESSORS, Headers, event_headers
from schemas.messages.dead_letters import dead_letter
from schemas.messages.frame import frame_message, sign_message
from schemas.messages.server_messages import seal_pictures, sign_statement
from schemas.pointillist_pb2 import CHECKED, NOT_PROBED, SHED, DeadLetter, KeyRequest, Refusal, ServedModel, Verdict

REFUSAL_CHARACTERS: Final = 200
"""Maximum length of the reason in a refusal to a camera."""


@dataclass(slots=True)
class Outgoing:
    """A record to send, and a callback for its acknowledgement."""

    key: bytes
    value: bytes | None
    """None removes the key from a compacted topic."""
    headers: Headers
    done: Callable[[], None]
    smaller: bytes | None = None
    """The value to send if Kafka rejects `value` as too large."""


def verdict_record(
    keys: KeyRing,
    taken: TakenFrame,
    model: Model,
    class_id: int,
    confidence: float,
    finding: StripFinding | None,
    done: Callable[[], None],
    preview: bytes = b"",
    evidence: bytes = b"",
    as_sent: bytes = b"",
    *,
    changed: float | None = None,
) -> Outgoing:
    """Return the verdict on a frame, signed under `keys`, its pictures sealed.

    `finding` is None if STRIP did not check the frame. `changed` is the mean change of the pixels that were sent twice,
    None without a comparison.
    """
    frame = taken.frame
    verdict = Verdict(
        boot_id=frame.boot_id,
        seq=frame.seq,
        captured_ms=frame.captured_ms,
        processed_ms=_now_ms(),
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
        pixel_bytes=len(frame.pixels) if taken.pixel_bytes is None else taken.pixel_bytes,
        strip=NOT_PROBED,
        changed=changed,
    )
    if finding is not None:
        verdict.threshold_bits = finding.threshold_bits
        if finding.entropy_bits is None:
            verdict.strip = SHED
        else:
            verdict.strip = CHECKED
            verdict.entropy_bits = finding.entropy_bits
            verdict.flagged = finding.flagged
    smaller = None
    if preview or evidence or as_sent:
        smaller = sign_statement(keys, taken.camera_id, verdict)
        verdict.preview = preview
        verdict.evidence = evidence
        verdict.as_sent = as_sent
        seal_pictures(verdict, taken.camera_id, keys)
    headers = event_headers(PROCESSORS, Verdict, str(taken.identity))
    if taken.traceparent is not None:
        headers.append((TRACEPARENT, taken.traceparent))
    value = sign_statement(keys, taken.camera_id, verdict)
    return Outgoing(taken.camera_id.encode(), value, headers, done, smaller)


def key_request_record(taken: TakenFrame, done: Callable[[], None]) -> Outgoing:
    """Return the event for the bridges: the camera must send a new key frame instead of the one for `taken`."""
    frame = taken.frame
    seq = frame.seq - frame.key_distance
    request = sign_message(taken.key, KeyRequest(boot_id=frame.boot_id, seq=seq))
    headers = event_headers(PROCESSORS, KeyRequest, f"{frame.boot_id:016x}/key/{seq}/{time.time_ns()}")
    return Outgoing(taken.camera_id.encode(), request, headers, done)


def refusal_record(taken: TakenFrame, error: WireError, done: Callable[[], None]) -> Outgoing:
    """Return the event that informs a camera and the recorder about the rejected, verified frame `taken`."""
    frame, now_ms = taken.frame, _now_ms()
    detail = str(error)[:REFUSAL_CHARACTERS]
    refusal = Refusal(boot_id=frame.boot_id, seq=frame.seq, reason=error.reason, detail=detail, refused_ms=now_ms)
    headers = event_headers(PROCESSORS, Refusal, f"{taken.identity}/refused")
    return Outgoing(taken.camera_id.encode(), sign_message(taken.key, refusal), headers, done)


def served_record(key: bytes, served: ServedModel | None) -> Outgoing:
    """Return the record of the model that a processor serves; None if it serves none any more."""
    headers = event_headers(PROCESSORS, ServedModel, f"{key.decode()}/{time.time_ns()}")
    return Outgoing(key, served.SerializeToString() if served is not None else None, headers, _nobody_waits)


def _nobody_waits() -> None:
    """Do nothing: the callback of a record that nothing depends on."""


def refused_record(
    keys: KeyRing,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    payload: bytes,
    error: WireError,
    done: Callable[[], None],
) -> Outgoing:
    """Return the dead letter of a record without a verified frame."""
    origin = topic, partition, offset
    camera_id = (key or b"").decode("utf-8", "replace")[:140]
    letter = dead_letter("validate", error.reason, str(error), origin, camera_id, payload, _now_ms())
    return _letter(keys, letter, key or b"", done)


def failed_record(
    keys: KeyRing, topic: str, taken: TakenFrame, stage: str, error: PointillistError, done: Callable[[], None]
) -> Outgoing:
    """Return the dead letter of a verified frame that a stage cannot process; its pixels stay sealed."""
    frame = taken.frame
    origin = topic, taken.partition, taken.offset
    reason = error.reason if isinstance(error, WireError) else "stage"
    payload = frame_message(frame)
    letter = dead_letter(stage, reason, str(error), origin, taken.camera_id, payload, _now_ms(), taken.frame_bytes)
    letter.verified, letter.boot_id, letter.seq = True, frame.boot_id, frame.seq
    return _letter(keys, letter, taken.camera_id.encode(), done)


def _letter(keys: KeyRing, letter: DeadLetter, key: bytes, done: Callable[[], None]) -> Outgoing:
    event_id = f"{letter.origin_topic}/{letter.origin_partition}/{letter.origin_offset}"
    headers = event_headers(PROCESSORS, DeadLetter, event_id)
    return Outgoing(key[:255], sign_statement(keys, letter.camera_id, letter), headers, done)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
