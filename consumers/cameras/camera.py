"""The latest state of one camera: what the console, the metrics and the plan of probes are made from."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from consumers.cameras.picture_health import PictureHealth
from consumers.cameras.state import CameraFacts, StateWithReason, judge, patience_s
from consumers.records.rows import CameraRow, FrameRow, statistic_name
from consumers.settings import SILENT_AFTER_S
from schemas.errors import MalformedError
from schemas.messages.camera_status import check_announcement
from schemas.pointillist_pb2 import CHECKED, UNKNOWN, Meta, Refusal, Status

RECENT_PROBES: Final = 50


@dataclass(slots=True)
class Camera:
    """The latest state of one camera."""

    name: str
    frames: int = 0
    """Number of recorded frames, purged ones included."""
    last: FrameRow | None = None
    """The newest frame of the most recent boot."""
    heard_ms: int = 0
    """Time of the last recorded frame, by `monotonic_ms`."""
    status_seen_ms: int = 0
    """Time of the last status, by `monotonic_ms`."""
    entropy_bits: float | None = None
    """Entropy of the last checked probe."""
    p_value: tuple[float, float, str] | None = None
    """P-value of the last checked probe, its threshold and the name of its statistic; None if the bundle has none."""
    examined: FrameRow | None = None
    """The last frame whose label was examined for a certificate, since the start of this process."""
    probes: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT_PROBES))
    """Whether each of the recent checked probes was flagged."""
    known_to_ms: int = 0
    """Time up to which its recorded frames are known, duplicates included, Unix time."""
    pictured: tuple[int, int] | None = None
    """Boot and sequence number of the newest frame with a preview."""
    status: CameraRow | None = None
    """The row of the last status message."""
    longest_gap_s: float = 0.0
    """The longest intended time between two frames, by its status."""
    refusal: str = ""
    """The reason for which its frames were rejected last."""
    refused_ms: int = 0
    """Time of that refusal, on the clock of `heard_ms`."""
    health: PictureHealth = field(default_factory=PictureHealth)
    is_revoked: bool = False
    """Whether the key generation that it announced last is not accepted any more."""
    judged: StateWithReason | None = None
    """The last judgement, None before the first."""
    judged_patience_s: float = 0.0
    """Its patience at the last judgement, in seconds."""
    since_ms: int = 0
    """When that state began, Unix time."""
    meta: Meta | None = None
    """The last announcement, parsed once; None if the plan of probes cannot use it."""
    boot: int = 0
    """The boot of the evidence."""
    level: float = 0.0
    """Evidence relative to the alert threshold, 0 to 1; 1 during an episode."""
    is_new: bool = True
    """Whether the camera has no baseline of evidence yet."""
    silent_at_ms: float = math.inf
    """The time at which `CameraCache` looks whether it has fallen silent; infinity if it does not send."""

    @property
    def sending(self) -> bool:
        """Whether its frames come, as far as `CameraCache` has checked."""
        return self.silent_at_ms < math.inf

    def record_frame(self, row: FrameRow, now_ms: int = 0) -> None:
        """Count a recorded frame."""
        self.frames += 1
        self.heard_ms, self.known_to_ms = now_ms, row.recorded_ms
        if self.last is None or follows(row.boot, row.seq, self.last.boot, self.last.seq):
            self.last = row
        if row.certified_patch:
            self.examined = row
        if row.strip == CHECKED:
            self.entropy_bits = row.entropy_bits
            found = (row.p_value, row.p_value_threshold, statistic_name(row.statistic))
            self.p_value = found if row.p_value_threshold else None
            self.probes.append(row.flagged)

    def record_status(self, status: CameraRow) -> None:
        """Take over a status and an announcement."""
        if self.status is None or self.status.meta != status.meta:
            self.meta = _announced(status.meta)
        self.longest_gap_s = _longest_gap_s(status.status)
        self.status = status

    def refuse(self, refusal: Refusal, now_ms: int) -> None:
        """Note that frames of it were rejected."""
        self.refusal, self.refused_ms = refusal.detail, now_ms

    def probe_share(self) -> float | None:
        """Return the announced share of frames that are sent whole; None before an announcement."""
        return self.meta.probe_share if self.meta is not None else None

    def flagged_share(self) -> float | None:
        """Return the flagged share of the recent probes; None if there were none."""
        return sum(self.probes) / len(self.probes) if self.probes else None

    @property
    def recorded_ms(self) -> int:
        """Unix time at which its last frame or status was recorded; 0 before both."""
        frame_ms = self.last.recorded_ms if self.last is not None else 0
        return max(frame_ms, self.status.seen_ms if self.status is not None else 0)

    def age_s(self, now_ms: int) -> float | None:
        """Return the seconds since the last frame was recorded; None before the first."""
        return (now_ms - self.heard_ms) / 1000 if self.last else None

    def patience_s(self, silent_after_s: float) -> float:
        """Return the time without frames after which the camera is silent; longer if it announces fewer frames."""
        return patience_s(self.meta, self.longest_gap_s, silent_after_s)

    def judge(self, now_ms: int, silent_after_s: float = SILENT_AFTER_S) -> StateWithReason:
        """Return its state at `now_ms`, on the clock of `heard_ms`."""
        return self.judge_of_frame(self.heard_ms if self.last is not None else None, now_ms, silent_after_s)

    def judge_of_frame(
        self, frame_ms: int | None, now_ms: int, silent_after_s: float = SILENT_AFTER_S
    ) -> StateWithReason:
        """Return its state at `now_ms` if its last frame was recorded at `frame_ms`, None for never."""
        return judge(
            CameraFacts(
                frame_ms=frame_ms,
                patience_s=self.patience_s(silent_after_s),
                reported=self.status.state if self.status else UNKNOWN,
                detail=self.status.detail if self.status else "",
                reported_ms=self.status_seen_ms,
                refusal=self.refusal,
                refused_ms=self.refused_ms,
                picture=self.health.state,
                is_suspect=self.level >= 1.0,
                is_revoked=self.is_revoked,
            ),
            now_ms,
        )


def follows(boot: int, seq: int, of_boot: int, of_seq: int) -> bool:
    """Return whether a frame is newer than the other one. Cameras send the frames of earlier boots first."""
    return boot != of_boot or seq >= of_seq


def _longest_gap_s(status: bytes) -> float:
    try:
        return Status.FromString(status).longest_gap_s
    except DecodeError:
        return 0.0


def _announced(meta: bytes) -> Meta | None:
    try:
        announced = Meta.FromString(meta)
        check_announcement(announced)
    except (DecodeError, MalformedError):
        return None
    return announced
