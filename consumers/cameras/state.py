"""The state of a camera: its values, the one rule that decides between them, and the reason in plain words.

The recorder judges each camera and saves the result (`consumers.cameras.saved`). Console, command line, terminal table,
Home Assistant and metrics read it. A reader derives one thing by itself: a camera whose frames have stopped since the
recorder last judged it is silent (`current`). Times are milliseconds on one clock of the caller's choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from consumers.settings import SILENT_AFTER_S
from schemas.limits import LEAST_FRAMES_PER_SECOND
from schemas.pointillist_pb2 import DEGRADED, ENDED, OFFLINE, ONLINE, PAUSED, UNKNOWN, Meta

_MISSED_FRAMES: Final = 2.5
"""A camera that sends seldom is silent when this many of its frames are missing."""
_LONGEST_GAP_S: Final = 1 / LEAST_FRAMES_PER_SECOND
"""Maximum announced seconds between two frames that count: a camera that announces more is silent sooner."""
_REFUSED_AFTER_MS: Final = 1_000
"""A camera is refused when no frame was recorded for this long before the last refusal."""


class State(StrEnum):
    """The states in the order of severity, the worst first."""

    ALERT = "alert"
    """An open backdoor alert."""
    OFFLINE = "offline"
    """Its connection to the broker is gone."""
    SILENT = "silent"
    """No frame has come for longer than the expected gap between two frames."""
    REFUSED = "refused"
    """Its frames arrive and are rejected."""
    DEGRADED = "degraded"
    """It reports a fault of its own."""
    BLACK = "black"
    """Its pictures are dark, or without contrast."""
    FROZEN = "frozen"
    """Its pictures have not changed for a while."""
    BLURRED = "blurred"
    """Its pictures are less sharp than its own usual ones."""
    PAUSED = "paused"
    """It sends nothing on purpose: by an operator's command or outside its hours."""
    ENDED = "ended"
    """Its source has ended, such as a video file."""
    REVOKED = "revoked"
    """Its key was revoked, and it has not enrolled again."""
    ONLINE = "online"
    """None of the other states."""

    @property
    def severity(self) -> int:
        """The place in the order, 0 for the worst."""
        return _SEVERITY[self]

    @property
    def level(self) -> str:
        """Return `bad` if it is broken, `warn` if a person should look at it, else `good`."""
        return "bad" if self in _BROKEN else "warn" if self.is_fault else "good"

    @property
    def is_fault(self) -> bool:
        """Whether an operator must act: false for a healthy camera, and for one that sends nothing on purpose."""
        return self not in _INTENDED


_SEVERITY: Final = {state: place for place, state in enumerate(State)}
_BROKEN: Final = frozenset({State.ALERT, State.OFFLINE})
_INTENDED: Final = frozenset({State.PAUSED, State.ENDED, State.REVOKED, State.ONLINE})
GONE: Final = frozenset({State.OFFLINE, State.SILENT, State.REFUSED, State.ENDED, State.REVOKED, State.ALERT})
"""States in which a camera may be gone for good, if no frame of it comes."""
_SENDING: Final = frozenset({State.BLACK, State.FROZEN, State.BLURRED, State.ONLINE})
"""States that hold only while frames come."""
PICTURE_REASONS: Final = {
    State.BLACK: "its pictures are black or without contrast: is the lens covered, or the light off?",
    State.FROZEN: "its pictures do not change: the camera repeats one picture",
    State.BLURRED: "its pictures have lost most of their sharpness: is the lens dirty or out of focus?",
}


@dataclass(frozen=True, slots=True)
class StateWithReason:
    """A state with its reason; the reason of `online` is empty."""

    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CameraFacts:
    """The facts about one camera that decide its state."""

    frame_ms: int | None = None
    """Time at which its last frame was recorded, None before the first."""
    patience_s: float = SILENT_AFTER_S
    """See `patience_s`."""
    reported: int = UNKNOWN
    """The state in its last `Status`."""
    detail: str = ""
    """The reason in that message."""
    reported_ms: int = 0
    """Time at which the reported state began."""
    refusal: str = ""
    """The reason for which its frames are rejected."""
    refused_ms: int = 0
    """Time of the last refusal."""
    picture: State | None = None
    """`BLACK`, `FROZEN`, `BLURRED`, or None for a good picture."""
    is_suspect: bool = False
    """Whether the evidence of a backdoor stands at an alert."""
    is_revoked: bool = False
    """Whether the key of its last signature has been revoked."""


def patience_s(meta: Meta | None, longest_gap_s: float = 0.0, silent_after_s: float = SILENT_AFTER_S) -> float:
    """Return the seconds without a frame after which a camera is silent.

    `longest_gap_s` is the field of its `Status`.
    """
    gap_s = longest_gap_s
    if meta is not None and meta.frames_per_second:
        gap_s = max(gap_s, 1 / meta.frames_per_second)
    return max(silent_after_s, _MISSED_FRAMES * min(gap_s, _LONGEST_GAP_S))


def judge(facts: CameraFacts, now_ms: int) -> StateWithReason:
    """Return the state that follows from these facts.

    A frame recorded more than `SILENT_AFTER_S` after a status that announces no frames proves that the status is
    outdated: the frame is too late to have been in flight. A last will may be replayed by anyone who saw the connection
    begin.
    """
    reported = facts.reported
    sends = facts.frame_ms is not None and now_ms - facts.frame_ms <= 1000 * facts.patience_s
    if sends and reported in (OFFLINE, PAUSED, ENDED) and _is_later(facts.frame_ms, facts.reported_ms):
        reported = ONLINE
    if facts.is_suspect:
        return StateWithReason(State.ALERT, "its pictures may hold a backdoor trigger")
    if facts.is_revoked:
        return StateWithReason(State.REVOKED, "its key was revoked: enrol it again")
    if reported == OFFLINE:
        return StateWithReason(State.OFFLINE, "no connection to the MQTT broker: check its power and network")
    if facts.refusal and _is_refused(facts, now_ms):
        return StateWithReason(State.REFUSED, facts.refusal)
    if reported == DEGRADED:
        return StateWithReason(State.DEGRADED, facts.detail)
    if reported == PAUSED:
        return StateWithReason(State.PAUSED, facts.detail or "paused by a command")
    if reported == ENDED:
        return StateWithReason(State.ENDED, facts.detail or "its source has ended")
    if not sends:
        return _silent(facts.frame_ms, facts.patience_s)
    if facts.picture is not None:
        return StateWithReason(facts.picture, PICTURE_REASONS[facts.picture])
    return StateWithReason(State.ONLINE)


def current(saved: StateWithReason, frame_ms: int | None, patience_s: float, now_ms: int) -> StateWithReason:
    """Return the state at `now_ms`: silent if the saved state needs frames and the last one is too old."""
    if saved.state in _SENDING and (frame_ms is None or now_ms - frame_ms > 1000 * patience_s):
        return _silent(frame_ms, patience_s)
    return saved


def alert(judged: StateWithReason, alerts: int) -> StateWithReason:
    """Return the state of a camera with this many open alerts: an open alert outranks every other state."""
    if not alerts or judged.state is State.ALERT:
        return judged
    return StateWithReason(
        State.ALERT, "a backdoor alert is open" if alerts == 1 else f"{alerts} backdoor alerts are open"
    )


def _is_later(frame_ms: int | None, reported_ms: int) -> bool:
    return frame_ms is not None and frame_ms - reported_ms > 1000 * SILENT_AFTER_S


def _is_refused(facts: CameraFacts, now_ms: int) -> bool:
    if now_ms - facts.refused_ms > 1000 * facts.patience_s:
        return False
    return facts.frame_ms is None or facts.refused_ms - facts.frame_ms >= _REFUSED_AFTER_MS


def _silent(frame_ms: int | None, patience_s: float) -> StateWithReason:
    if frame_ms is None:
        return StateWithReason(State.SILENT, "no frame yet")
    return StateWithReason(State.SILENT, f"no frame for more than {_duration(patience_s)}")


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
