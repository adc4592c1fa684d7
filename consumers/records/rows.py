"""Rows of the busiest tables, with the names and the order of their columns."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from schemas.limits import CAMERAS_AT_HAND


class FrameRow(NamedTuple):
    """A row of `frames`."""

    camera: str
    boot: int
    seq: int
    captured_ms: int
    processed_ms: int
    recorded_ms: int
    class_id: int
    class_name: str
    confidence: float
    model_id: str
    policy: str
    truth: int
    width: int
    height: int
    channels: int
    dropped_per_block: int
    whole: bool
    profile: int
    frame_bytes: int
    pixel_bytes: int
    strip: int
    entropy_bits: float
    threshold_bits: float
    flagged: bool
    class_group: str
    best: str
    """The three best classes in words, such as `suit 31 %, jean 12 %`; empty if the network is never unsure."""


POSTGRESQL_ROW_BYTES: Final = 320
_ROW_BYTES: Final = {"sqlite": 160, "postgresql": POSTGRESQL_ROW_BYTES}
"""Estimated bytes of a row of `frames` with two index entries, without texts.

Measured on SQLite: 125 bytes, with index pages filled by frames in order. PostgreSQL stores every number at full width.
"""


@lru_cache(CAMERAS_AT_HAND)
def frame_bytes(dialect: str, camera: str, class_name: str, model_id: str, policy: str) -> int:
    """Return the estimated bytes of a row of `frames` with these texts; an index also holds the camera."""
    texts = 2 * len(camera.encode()) + len(class_name.encode()) + len(model_id.encode()) + len(policy.encode())
    return _ROW_BYTES[dialect] + texts


def text_bytes(class_group: str, best: str) -> int:
    """Return the bytes of the texts that differ from frame to frame."""
    return len(class_group.encode()) + len(best.encode()) if class_group or best else 0


def bytes_of(rows: Iterable[FrameRow], dialect: str) -> int:
    """Return the estimated bytes of these rows."""
    return sum(
        frame_bytes(dialect, row.camera, row.class_name, row.model_id, row.policy)
        + text_bytes(row.class_group, row.best)
        for row in rows
    )


class LetterRow(NamedTuple):
    """A row of `dead_letters`."""

    topic: str
    partition: int
    offset: int
    stage: str
    reason: str
    error: str
    camera: str
    verified: bool
    boot: int
    seq: int
    origin: str
    payload: bytes
    payload_bytes: int
    stored_bytes: int
    at_ms: int
    recorded_ms: int


class LedgerRow(NamedTuple):
    """A row of `ledgers`."""

    camera: str
    boot: int
    revision: int
    started_ms: int
    first: int
    next: int
    closed: bool
    frames_skipped: int
    frames_resent: int
    bytes_resent: int
    written_ms: int
    confirmed_to: int
    message: bytes
    taken_ms: int = 0


class SummedRow(NamedTuple):
    """A row of `summed_ledgers`."""

    camera: str
    ledgers: int
    shed: int
    pending: int
    lost: int
    frames_skipped: int
    frames_resent: int
    bytes_resent: int
    started_ms: int


class CameraRow(NamedTuple):
    """A row of `cameras`."""

    camera: str
    state: int = 0
    state_ms: int = 0
    detail: str = ""
    status: bytes = b""
    meta: bytes = b""
    seen_ms: int = 0
