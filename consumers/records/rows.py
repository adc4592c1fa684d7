"""Rows of the busiest tables, with the names and the order of their columns."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from schemas.evidence.track import NO_SCENE
from schemas.limits import MAX_CAMERAS
from schemas.pointillist_pb2 import Statistic

UNSURE: Final = "unsure"
"""`class_name` of a verdict by a network that is not certain of any class."""


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
    certified_patch: int = 0
    """Side in pixels of the sticker for which the label was examined; 0 if it was not."""
    certified: bool = False
    """Whether no such sticker changes the label."""
    windows: str = ""
    """The windows of the examination for stickers, in the form of `windows_text`."""
    p_value: float = 0.0
    """Estimated share of clean frames that look at least as unusual, 0 to 1, if `p_value_threshold` is not 0."""
    p_value_threshold: float = 0.0
    """P-value below which a frame is suspect; 0 if the bundle has none."""
    statistic: int = 0
    """A `Statistic`: the one that finds the frame most unusual."""
    scene: int = NO_SCENE
    """Sequence number of the checked frame with which this one's scene began; `NO_SCENE` if it is unknown."""


def statistic_name(statistic: int) -> str:
    """Return the name of a `Statistic` in lower case; empty for none."""
    return Statistic.Name(statistic).lower() if statistic else ""


class Window(NamedTuple):
    """A window that was dropped on trial, in frame pixels, and the probability that the label loses without it."""

    left: int
    top: int
    right: int
    bottom: int
    dependence: float


MOST_WINDOWS: Final = 144
"""Most windows of a frame that a row holds."""


def windows_text(windows: Iterable[Window]) -> str:
    """Return windows in words, such as `0 0 16 16 0.03; 8 0 24 16 0.91`."""
    return "; ".join(" ".join((*map(str, each[:4]), f"{each.dependence:.2f}")) for each in windows)


def windows_of(text: str) -> list[Window]:
    """Invert `windows_text`, but for the digits of the dependence."""
    found = []
    for each in text.split("; ") if text else ():
        *place, dependence = each.split(" ")
        left, top, right, bottom = map(int, place)
        found.append(Window(left, top, right, bottom, float(dependence)))
    return found


POSTGRESQL_ROW_BYTES: Final = 336
_ROW_BYTES: Final = {"sqlite": 160, "postgresql": POSTGRESQL_ROW_BYTES}
"""Estimated bytes of a row of `frames` with two index entries, without texts.

Measured on SQLite: 125 bytes, with index pages filled by frames in order. PostgreSQL stores every number at full width.
"""


@lru_cache(MAX_CAMERAS)
def frame_bytes(dialect: str, camera: str, class_name: str, model_id: str, policy: str) -> int:
    """Return the estimated bytes of a row of `frames` with these texts; an index also holds the camera."""
    texts = 2 * len(camera.encode()) + len(class_name.encode()) + len(model_id.encode()) + len(policy.encode())
    return _ROW_BYTES[dialect] + texts


def text_bytes(class_group: str, best: str, windows: str = "") -> int:
    """Return the bytes of the texts that differ from frame to frame."""
    return len(class_group.encode()) + len(best.encode()) + len(windows) if class_group or best or windows else 0


def bytes_of(rows: Iterable[FrameRow], dialect: str) -> int:
    """Return the estimated bytes of these rows."""
    return sum(
        frame_bytes(dialect, row.camera, row.class_name, row.model_id, row.policy)
        + text_bytes(row.class_group, row.best, row.windows)
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
