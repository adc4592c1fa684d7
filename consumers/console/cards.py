"""What the fleet page shows of one camera."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from consumers.cameras.camera import Camera
from consumers.cameras.order import NaturalKey, natural
from consumers.cameras.saved import SavedState
from consumers.cameras.state import State, alert
from consumers.reading.rows import FrameRow

_SAMPLES: Final = 10
_EVERY_MS: Final = 1_000
_REMEMBERED: Final = 1_000
"""Frames after which what was saved counts half."""


@dataclass(frozen=True, slots=True)
class Card:
    """One camera as the page shows it; two that are equal look the same."""

    name: str
    """As `site/camera`."""
    state: State
    """The state that all programs show."""
    detail: str = ""
    """The reason of that state, in plain words."""
    captured_ms: int | None = None
    """When its last frame was taken, by its own clock."""
    verdict: str = ""
    """The class of that frame."""
    confidence: float = 0.0
    """0 to 1, of that verdict."""
    model: str = ""
    """Which model gave it."""
    frames_per_second: float = 0.0
    """Over the last ten seconds in which frames came."""
    saved: float | None = None
    """Share of the raw bytes that was not sent."""
    evidence: float = 0.0
    """Of a backdoor, 0 to 1, which is an alert."""
    alert: str = ""
    """The id of the newest one that nobody has closed."""
    acknowledged: bool = False
    """Whether somebody looks after all of its alerts."""
    picture: int = 0
    """Counted with each picture that came; 0 before the first."""
    size: tuple[int, int, int] | None = None
    """Width, height and channels."""
    frames: int = 0
    """How many were recorded."""

    @property
    def site(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]

    @property
    def order(self) -> tuple[int, NaturalKey]:
        """The worst first, then by name."""
        return self.state.severity, natural(self.name)

    @property
    def element(self) -> str:
        """Its id on the page, of letters, digits and hyphens, another for each name."""
        return "card-" + "".join(
            each if each.isascii() and each.isalnum() else f"-{ord(each):x}-" for each in self.name
        )


@dataclass(slots=True)
class Watched:
    """One camera with what its cards are made of."""

    camera: Camera
    pictures: int = 0
    alerts: list[str] = field(default_factory=list)
    """The newest of each episode that nobody has closed, the newest last."""
    acknowledged: bool = False
    newest_ms: int = 0
    """The latest time of capture."""
    _raw: float = 0.0
    _sent: float = 0.0
    _counted: float = 0.0
    _samples: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    """When, boot and sequence number: frames are numbered, so that those that were passed over count too."""

    def take(self, row: FrameRow, now_ms: int) -> None:
        """A frame's verdict has come, at `now_ms` of a monotonic clock."""
        self.camera.take(row, now_ms)
        self.newest_ms = max(self.newest_ms, row.captured_ms) if row.captured_ms <= row.recorded_ms else row.recorded_ms
        self._raw += row.width * row.height * row.channels
        self._sent += row.frame_bytes
        self._counted += 1
        if self._counted > _REMEMBERED:
            self._raw, self._sent, self._counted = self._raw / 2, self._sent / 2, self._counted / 2
        last = self._samples[-1] if self._samples else None
        if last is not None and last[1] != row.boot:
            self._samples.clear()
        if last is None or not self._samples or (now_ms - last[0] >= _EVERY_MS and row.seq > last[2]):
            self._samples.append((now_ms, row.boot, row.seq))

    def rate(self) -> float:
        """Frames a second, of the last ten seconds in which frames came."""
        if len(self._samples) < 2:
            return 0.0
        (begin_ms, _, first), (end_ms, _, last) = self._samples[0], self._samples[-1]
        return 1000 * (last - first) / max(1, end_ms - begin_ms)

    def card(self, saved: SavedState | None, now_ms: int, silent_after_s: float) -> Card:
        """What the page shows now: the state is the one that the recorder has `saved`, once it has."""
        camera, last = self.camera, self.camera.last
        heard_ms = camera.heard_ms if last is not None else None
        patience_s = camera.patience_s(silent_after_s) if saved is None else saved.patience_s
        sends = heard_ms is not None and now_ms - heard_ms <= 1000 * patience_s
        judged = camera.judge(now_ms, silent_after_s) if saved is None else saved.now(heard_ms, now_ms)
        judged = alert(judged, len(self.alerts))
        meta = camera.meta
        size = (meta.width, meta.height, meta.channels) if meta and meta.width else None
        return Card(
            name=camera.name,
            state=judged.state,
            detail=judged.reason,
            captured_ms=self.newest_ms or (last.captured_ms if last else None),
            verdict=last.class_name if last else "",
            confidence=round(last.confidence, 3) if last else 0.0,
            model=last.model_id if last else "",
            frames_per_second=round(self.rate(), 1) if sends else 0.0,
            saved=round(1 - self._sent / self._raw, 3) if self._raw else None,
            evidence=round(camera.level, 2),
            alert=self.alerts[-1] if self.alerts else "",
            acknowledged=bool(self.alerts) and self.acknowledged,
            picture=self.pictures,
            size=(last.width, last.height, last.channels) if last else size,
            frames=camera.frames,
        )
