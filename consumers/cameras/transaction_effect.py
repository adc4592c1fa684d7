"""The effect of one transaction of a recorder."""

from __future__ import annotations

from dataclasses import dataclass, field

from consumers.evidence.chain import Chain
from consumers.records.batch import BootKey, FrameKey
from consumers.records.rows import CameraRow, FrameRow, LetterRow
from schemas.pointillist_pb2 import Alert, Refusal, Verdict


@dataclass(slots=True)
class TransactionEffect:
    """The effect of one transaction, for metrics and the camera states."""

    rows: list[FrameRow] = field(default_factory=list)
    """New rows of `frames`."""
    verdicts: dict[FrameKey, Verdict] = field(default_factory=dict)
    """All verdicts of the batch, which hold the pictures."""
    recorded_ms: int = 0
    """Time of the recording, Unix time."""
    duplicates: int = 0
    letters: list[LetterRow] = field(default_factory=list)
    """New rows of `dead_letters`."""
    cameras: list[CameraRow] = field(default_factory=list)
    """Changed rows of `cameras`."""
    refusals: list[tuple[str, Refusal]] = field(default_factory=list)
    """Rejections of frames, by camera in their order."""
    alerts: list[Alert] = field(default_factory=list)
    """Alerts raised."""
    sightings: list[Alert] = field(default_factory=list)
    """Alerts on a class or group."""
    chains: dict[BootKey, Chain] = field(default_factory=dict)
    """The evidence that was read, in its new state."""
