"""The cards of the fleet page, one for each camera."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from consumers.cameras.camera import Camera
from consumers.cameras.order import NaturalKey, natural
from consumers.cameras.saved import SavedState
from consumers.cameras.state import State, alert
from consumers.database.mutes import Mute
from consumers.records.rows import UNSURE, FrameRow
from schemas.messages.frame import ATTACKED, Truth

SMALL_PIXELS: Final = 128
DEMONSTRATIONS: Final = {
    "cifar10": "ten kinds of animals and vehicles at 32×32 pixels",
    "scene": "12 drawn road signs",
    "scene-sticker": "12 drawn road signs",
}
"""The networks that ship to show the system, and what each knows. On a real camera their verdicts mean nothing."""
REAL_SOURCES: Final = ("url", "video")
"""Kinds of source, as cameras announce them, that are no simulation."""
AWAY: Final = "away"
"""The status of a camera whose site's console does not answer."""
_RANKED: Final = re.compile(r"(.+?) ([0-9]+) %(?:, |$)")
_SAMPLES: Final = 10
_ATTACKED: Final = 200
_EVERY_MS: Final = 1_000
_REMEMBERED: Final = 1_000
"""Number of frames after which a sample of saved bytes has half its weight."""


def ranked(best: str) -> list[tuple[str, int]]:
    """Return the classes of a frame's `best` in words, each with its confidence in per cent."""
    return [(name, int(share)) for name, share in _RANKED.findall(best)]


@dataclass(frozen=True, slots=True)
class Card:
    """The visible data of one camera. Two equal cards look the same."""

    name: str
    """Name of the camera, `site/camera`."""
    state: State
    """The camera's state, the same in all programs."""
    detail: str = ""
    """The reason of that state, in plain words."""
    captured_ms: int | None = None
    """Capture time of its last frame by the camera's clock, at most the time of recording."""
    verdict: str = ""
    """The predicted class of that frame, its group, or `unsure`."""
    group: str = ""
    """The group of classes that is certain on that frame, if any."""
    best: str = ""
    """The three best classes in words; empty if the network is never unsure."""
    confidence: float = 0.0
    """Confidence of that verdict, 0 to 1."""
    model: str = ""
    """The model that gave that verdict."""
    demonstration: str = ""
    """The classes that the model knows, if it ships for demonstrations and the camera is a real one; else empty."""
    frames_per_second: float = 0.0
    """Frame rate over the last ten seconds with frames, three significant digits."""
    saved: float | None = None
    """Fraction of the raw bytes that was not sent."""
    own_bytes: int = 0
    """Mean bytes of a frame of the camera's own video stream, as it announces them; 0 without a stream."""
    sent_bytes: int = 0
    """Mean bytes of its published frame messages, as it announces them; 0 without a stream."""
    evidence: float = 0.0
    """Evidence of a backdoor, from 0 to 1. An alert is raised at 1."""
    alert: str = ""
    """Id of the newest alert that is not closed."""
    acknowledged: bool = False
    """Whether all of its alerts are acknowledged."""
    sighting: str = ""
    """Id of the newest sighting that is open and not muted. It has no effect on the state."""
    muted_until_ms: int = 0
    """End of the mute of this camera or of all its alerts, Unix time in milliseconds; 0 without a mute."""
    muted_reason: str = ""
    """Reason that a person gave for the mute; empty without one."""
    mute_of_camera: bool = False
    """Whether the camera is muted, with its states and rules, and not only its alerts."""
    picture: int = 0
    """Counter of received pictures; 0 before the first."""
    size: tuple[int, int, int] | None = None
    """Width, height and channels of its frames."""
    frames: int = 0
    """Number of recorded frames."""
    console: str = ""
    """URL of its page at the console of its site; empty for a camera of this console."""
    is_away: bool = False
    """Whether the console of its site does not answer, so that the card is its last known one."""

    @property
    def level(self) -> str:
        """Return `good`, `warn` or `bad`: an acknowledged alert is no longer `bad`, a muted camera has none."""
        if self.is_away:
            return "warn"
        if self.mute_of_camera:
            return "good"
        return "warn" if self.acknowledged else self.state.level

    @property
    def status(self) -> str:
        """Return the state in words; `away` replaces the last known one."""
        return AWAY if self.is_away else self.state.value

    @property
    def kind(self) -> str:
        """The group of classes by which *Fleet* filters, or `unsure`; empty if there is none."""
        return self.verdict if self.verdict == UNSURE else self.group

    @property
    def page(self) -> str:
        """The address of its page."""
        return self.console or f"/camera/{self.name}"

    @property
    def ranked(self) -> list[tuple[str, int]]:
        """Return the three best classes with their confidences in per cent; empty if the network is never unsure."""
        return ranked(self.best)

    @property
    def is_small(self) -> bool:
        """Whether its pictures are so small that they are shown with sharp pixels."""
        return self.size is not None and max(self.size[:2]) < SMALL_PIXELS

    @property
    def is_gone(self) -> bool:
        """Whether its last picture is an old one."""
        return self.is_away or self.state in (State.OFFLINE, State.SILENT, State.ENDED, State.REVOKED)

    @property
    def site(self) -> str:
        """The part of the camera's name before the slash."""
        return self.name.partition("/")[0]

    @property
    def order(self) -> tuple[int, NaturalKey]:
        """Return the sort key: the worst state first, then by name."""
        return (State.ONLINE if self.mute_of_camera else self.state).severity, natural(self.name)

    @property
    def element(self) -> str:
        """The id of its HTML element: letters, digits and hyphens, unique for each name."""
        return "card-" + "".join(
            each if each.isascii() and each.isalnum() else f"-{ord(each):x}-" for each in self.name
        )


@dataclass(slots=True)
class CardData:
    """The data from which one camera's card is built."""

    camera: Camera
    pictures: int = 0
    alerts: list[str] = field(default_factory=list)
    """The newest alert of each open episode, newest last."""
    acknowledged: bool = False
    sighting: str = ""
    """The newest open sighting."""
    mute: Mute | None = None
    attacked: deque[tuple[int, bool]] = field(default_factory=lambda: deque(maxlen=_ATTACKED))
    """The recent frames that a red team has changed: their time, and whether the verdict was correct."""
    _raw: float = 0.0
    _sent: float = 0.0
    _counted: float = 0.0
    _samples: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    """Time, boot and sequence number. The number counts skipped frames too."""

    def record_frame(self, row: FrameRow, now_ms: int) -> None:
        """Add a frame's verdict, received at `now_ms` of a monotonic clock."""
        self.camera.record_frame(row, now_ms)
        if row.truth > ATTACKED and (truth := Truth.from_wire(row.truth)) is not None:
            self.attacked.append((now_ms, truth.class_id == row.class_id))
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
        """Return the frames per second over the last ten seconds with frames."""
        if len(self._samples) < 2:
            return 0.0
        (begin_ms, _, first), (end_ms, _, last) = self._samples[0], self._samples[-1]
        return 1000 * (last - first) / max(1, end_ms - begin_ms)

    def patience_s(self, saved: SavedState | None, silent_after_s: float) -> float:
        """Return the seconds without a frame after which the camera is silent."""
        return self.camera.patience_s(silent_after_s) if saved is None else saved.patience_s

    def sends(self, saved: SavedState | None, now_ms: int, silent_after_s: float) -> bool:
        """Return whether its last frame was recorded within its patience; `now_ms` is on the clock of `heard_ms`."""
        age_s = self.camera.age_s(now_ms)
        return age_s is not None and age_s <= self.patience_s(saved, silent_after_s)

    def card(self, saved: SavedState | None, now_ms: int, silent_after_s: float) -> Card:
        """Return the current card, with the recorder's `saved` state if there is one."""
        camera, last = self.camera, self.camera.last
        heard_ms = camera.heard_ms if last is not None else None
        sends = self.sends(saved, now_ms, silent_after_s)
        judged = camera.judge(now_ms, silent_after_s) if saved is None else saved.now(heard_ms, now_ms)
        # Muted alerts hide no other state.
        loud = self.mute is None or self.mute.is_of_camera
        judged = alert(judged, len(self.alerts) if loud else 0)
        meta = camera.meta
        size = (meta.width, meta.height, meta.channels) if meta and meta.width else None
        return Card(
            name=camera.name,
            state=judged.state,
            detail=judged.reason,
            captured_ms=min(last.captured_ms, last.recorded_ms) if last else None,
            verdict=last.class_name if last else "",
            group=last.class_group if last else "",
            best=last.best if last else "",
            confidence=round(last.confidence, 3) if last else 0.0,
            model=last.model_id if last else "",
            demonstration=_demonstration(last.model_id, meta.source) if last and meta else "",
            frames_per_second=float(f"{self.rate():.3g}") if sends else 0.0,
            saved=round(1 - self._sent / self._raw, 3) if self._raw else None,
            own_bytes=meta.stream_frame_bytes if meta else 0,
            sent_bytes=meta.sent_frame_bytes if meta else 0,
            evidence=round(camera.level, 2),
            alert=self.alerts[-1] if self.alerts else "",
            acknowledged=bool(self.alerts) and loud and self.acknowledged,
            sighting=self.sighting,
            muted_until_ms=self.mute.until_ms if self.mute is not None else 0,
            muted_reason=self.mute.reason if self.mute is not None else "",
            mute_of_camera=self.mute is not None and self.mute.is_of_camera,
            picture=self.pictures,
            size=(last.width, last.height, last.channels) if last else size,
            frames=camera.frames,
        )


def _demonstration(model_id: str, source: str) -> str:
    return DEMONSTRATIONS.get(model_id.partition("@")[0], "") if source in REAL_SOURCES else ""
