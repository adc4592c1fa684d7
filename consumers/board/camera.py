"""One camera as the pages, the metrics and the plan of probes see it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, TypedDict

from google.protobuf.message import DecodeError

from consumers.cameras.picture_health import PictureHealth
from consumers.cameras.state import Facts, Judged, State, judge, patience_s
from consumers.reading.rows import CameraRow, FrameRow
from schemas.announcement import check_announcement
from schemas.errors import Malformed
from schemas.pointillist_pb2 import CHECKED, UNKNOWN, Meta, Refusal, Status

RECENT_PROBES: Final = 50


class Described(TypedDict):
    """One camera as other programs are told of it."""

    camera: str
    """As `site/camera`."""
    status: State
    """The state of the camera, by the rule that all programs share."""
    detail: str
    """The reason of that state; empty for `online`."""
    age_s: float | None
    """Seconds since its last frame was recorded."""
    verdict: dict[str, object] | None
    """`class`, `confidence` (0 to 1) and `model` of that frame."""
    entropy_bits: float | None
    """Of the last frame that STRIP has checked."""
    flagged_share: float | None
    """Of the last 50 such frames, the share that was flagged."""
    evidence: float
    """Of a backdoor, 0 to 1, which is an alert."""
    probe_share: float | None
    """Share of its frames that it says it sends whole."""
    size: dict[str, int] | None
    """`width`, `height` and `channels` of its pictures."""
    frames_recorded: int
    """How many, purged ones included."""


@dataclass(slots=True)
class Camera:
    """One camera as the pages show it."""

    name: str
    frames: int = 0
    """Recorded, purged ones included."""
    last: FrameRow | None = None
    """The newest frame of the boot that was heard last."""
    heard_ms: int = 0
    """When a frame was recorded last."""
    said_ms: int = 0
    """When it was heard last how the camera is."""
    entropy_bits: float | None = None
    """Of the last checked probe."""
    probes: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT_PROBES))
    """Of the recent checked probes, whether they were flagged."""
    recorded_ms: int = 0
    """The same in Unix time."""
    status: CameraRow | None = None
    """Set by `say`."""
    longest_gap_s: float = 0.0
    """The longest intended time between two frames, by its status."""
    refusal: str = ""
    """Why frames of it were refused last."""
    refused_ms: int = 0
    """When that was, on the clock of `heard_ms`."""
    health: PictureHealth = field(default_factory=PictureHealth)
    is_revoked: bool = False
    """Whether the key generation that it announced last is not accepted any more."""
    judged: Judged | None = None
    """The last judgement, None before the first."""
    since_ms: int = 0
    """When that state began, Unix time."""
    meta: Meta | None = None
    """What it has announced, None when that cannot be planned with; read once and not whenever it is asked for."""
    boot: int = 0
    """The boot that the evidence is of."""
    level: float = 0.0
    """How far its evidence is on its way to an alert, 1 during an episode."""
    is_new: bool = True
    """Whether it has no baseline of evidence yet."""
    alerts: int = 0
    """Raised since this process began."""
    sending: bool = False
    """Whether its frames come, as far as `Board` has looked."""
    version: int = 0
    """Of the board, when something of it changed last."""

    def take(self, row: FrameRow, now_ms: int = 0) -> None:
        """A new frame was recorded."""
        self.frames += 1
        self.heard_ms, self.recorded_ms = now_ms, row.recorded_ms
        if self.last is None or follows(row.boot, row.seq, self.last.boot, self.last.seq):
            self.last = row
        if row.strip == CHECKED:
            self.entropy_bits = row.entropy_bits
            self.probes.append(row.flagged)

    def say(self, status: CameraRow) -> None:
        """What the camera has said of itself now."""
        if self.status is None or self.status.meta != status.meta:
            self.meta = _announced(status.meta)
        self.longest_gap_s = _longest_gap_s(status.status)
        self.status = status

    def refuse(self, refusal: Refusal, now_ms: int) -> None:
        """Note that frames of it were refused."""
        self.refusal, self.refused_ms = refusal.detail, now_ms

    def probe_share(self) -> float | None:
        """Share of its frames that it says it sends whole; None when it has not said."""
        return self.meta.probe_share if self.meta is not None else None

    def flagged_share(self) -> float | None:
        """Of the recent probes; None when there were none."""
        return sum(self.probes) / len(self.probes) if self.probes else None

    def age_s(self, now_ms: int) -> float | None:
        """Since the last frame was recorded; None before the first."""
        return (now_ms - self.heard_ms) / 1000 if self.last else None

    def patience_s(self, silent_after_s: float) -> float:
        """Without a frame for this long it is silent: longer for one that announces fewer frames than that."""
        return patience_s(self.meta, self.longest_gap_s, silent_after_s)

    def judge(self, now_ms: int, silent_after_s: float) -> Judged:
        """Return its state at `now_ms`, on the clock of `heard_ms`."""
        return self.judge_of_frame(self.heard_ms if self.last is not None else None, now_ms, silent_after_s)

    def judge_of_frame(self, frame_ms: int | None, now_ms: int, silent_after_s: float) -> Judged:
        """Return its state at `now_ms` if its last frame was recorded at `frame_ms`, None for never."""
        return judge(
            Facts(
                frame_ms=frame_ms,
                patience_s=self.patience_s(silent_after_s),
                reported=self.status.state if self.status else UNKNOWN,
                detail=self.status.detail if self.status else "",
                reported_ms=self.said_ms,
                refusal=self.refusal,
                refused_ms=self.refused_ms,
                picture=self.health.state,
                is_suspect=self.level >= 1.0,
                is_revoked=self.is_revoked,
            ),
            now_ms,
        )

    def describe(self, now_ms: int, silent_after_s: float) -> Described:
        """The camera as `/cameras` lists it."""
        last, meta = self.last, self.meta
        size = {"width": meta.width, "height": meta.height, "channels": meta.channels} if meta and meta.width else None
        if last is not None:
            size = {"width": last.width, "height": last.height, "channels": last.channels}
        judged = self.judge(now_ms, silent_after_s)
        return {
            "camera": self.name,
            "status": judged.state,
            "detail": judged.reason,
            "age_s": self.age_s(now_ms),
            "verdict": last and {"class": last.class_name, "confidence": last.confidence, "model": last.model_id},
            "entropy_bits": self.entropy_bits,
            "flagged_share": self.flagged_share(),
            "evidence": self.level,
            "probe_share": self.probe_share(),
            "size": size,
            "frames_recorded": self.frames,
        }


def follows(boot: int, seq: int, of_boot: int, of_seq: int) -> bool:
    """Whether a frame is newer than the other one. Cameras send the frames of earlier boots first."""
    return boot != of_boot or seq >= of_seq


def _longest_gap_s(status: bytes) -> float:
    try:
        return Status.FromString(status).longest_gap_s
    except DecodeError:
        return 0.0


def _announced(meta: bytes) -> Meta | None:
    try:
        said = Meta.FromString(meta)
        check_announcement(said)
    except (DecodeError, Malformed):
        return None
    return said
