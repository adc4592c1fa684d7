"""Dead letters: the rest of a payload that a stage rejected, and the reason."""

from __future__ import annotations

from typing import Final

from schemas.limits import DEAD_LETTER_PAYLOAD_BYTES
from schemas.pointillist_pb2 import DeadLetter

ERROR_CHARACTERS: Final = 500


def dead_letter(
    stage: str,
    reason: str,
    error: str,
    origin: tuple[str, int, int],
    camera_id: str,
    payload: bytes,
    at_ms: int,
    payload_bytes: int | None = None,
) -> DeadLetter:
    """Return the dead letter of a payload without a verified identity, rejected at `at_ms` (Unix time).

    `origin` is the topic, partition and offset of the record; the offset is -1 if there is no record. `error` and
    `payload` are cut to the limits of a dead letter. Pass `payload_bytes` if the original size differs from the length
    of `payload`.
    """
    return DeadLetter(
        origin_topic=origin[0],
        origin_partition=origin[1],
        origin_offset=origin[2],
        stage=stage,
        reason=reason,
        error=error[:ERROR_CHARACTERS].encode("utf-8", "replace").decode(),  # it may quote a text that is no Unicode
        camera_id=camera_id,
        payload=payload[:DEAD_LETTER_PAYLOAD_BYTES],
        payload_bytes=len(payload) if payload_bytes is None else payload_bytes,
        at_ms=at_ms,
    )
