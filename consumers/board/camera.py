"""One camera as the pages, the metrics and the plan of probes see it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, TypedDict

from google.protobuf.message import DecodeError

from consumers.reading.rows import CameraRow, FrameRow
from schemas.announcement import check_announcement
from schemas.errors import Malformed
from schemas.pointillist_pb2 import CHECKED, DEGRADED, OFFLINE, ONLINE, UNKNOWN, Meta

RECENT_PROBES: Final = 50
_STATES: Final[dict[int, str]] = {OFFLINE: "offline", DEGRADED: "degraded", ONLINE: "online"}
_MISSED_FRAMES: Final = 2.5
"""A camera that sends so rarely that it is quiet for longer than others is silent when it has missed its frames."""
_LONGEST_PATIENCE_S: Final = 3_600.0


class Described(TypedDict):
    """One camera as other programs are told of it."""

    camera: str
    """As `site/camera`."""
    status: str
    """`online`, `degraded`, `silent` or `offline`."""
    detail: str
    """Why, where the camera says it."""
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
    status: CameraRow | None = None
    """Set by `say`."""
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
        self.heard_ms = now_ms
        if self.last is None or follows(row.boot, row.seq, self.last.boot, self.last.seq):
            self.last = row
        if row.strip == CHECKED:
            self.entropy_bits = row.entropy_bits
            self.probes.append(row.flagged)

    def say(self, status: CameraRow) -> None:
        """What the camera has said of itself now."""
        if self.status is None or self.status.meta != status.meta:
            self.meta = _announced(status.meta)
        self.status = status

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
        rate = self.meta.frames_per_second if self.meta is not None else 0.0
        return max(silent_after_s, min(_MISSED_FRAMES / rate, _LONGEST_PATIENCE_S)) if rate else silent_after_s

    def state(self, now_ms: int, silent_after_s: float) -> str:
        """`offline` or `degraded` as the camera says, `online` while frames come, else `silent`.

        Frames that are recorded so long after it was called offline that they are not what was still on its way show
        that it is not: a last will is known to whoever hears the connection being made, and can be replayed.
        """
        said = self.status.state if self.status else UNKNOWN
        age_s = self.age_s(now_ms)
        sends = age_s is not None and age_s <= self.patience_s(silent_after_s)
        if said == OFFLINE and sends and self.heard_ms - self.said_ms > 1000 * silent_after_s:
            said = ONLINE
        if said in (OFFLINE, DEGRADED):
            return _STATES[said]
        return "online" if sends else "silent"

    def describe(self, now_ms: int, silent_after_s: float) -> Described:
        """The camera as `/cameras` lists it."""
        last, meta = self.last, self.meta
        size = {"width": meta.width, "height": meta.height, "channels": meta.channels} if meta and meta.width else None
        if last is not None:
            size = {"width": last.width, "height": last.height, "channels": last.channels}
        return {
            "camera": self.name,
            "status": self.state(now_ms, silent_after_s),
            "detail": self.status.detail if self.status else "",
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


def _announced(meta: bytes) -> Meta | None:
    try:
        said = Meta.FromString(meta)
        check_announcement(said)
    except (DecodeError, Malformed):
        return None
    return said
