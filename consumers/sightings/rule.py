"""The rule of a sighting: the frames that begin one, and the absence that ends it. Pure functions.

`docs/adr/0074-sightings.md` gives the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from consumers.records.rows import UNSURE

SIGHTING: Final = "sighting"
"""The kind of these alerts."""
DEFAULTS: Final[Mapping[str, float]] = {"frames": 3, "confidence": 0.5, "absent_s": 60.0, "cooldown_s": 900.0}
"""Values of a rule's fields that are absent."""
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "frames": (2, 100),
    "confidence": (0.0, 1.0),
    "absent_s": (5.0, 86_400.0),
    "cooldown_s": (60.0, 86_400.0),
}


class SightingRule(NamedTuple):
    """A class or group of which users want to be notified, for a group of cameras."""

    cameras: str
    """The group of cameras: `site/camera`, or a site and the beginning of names with `*`."""
    wanted: str
    """A class, or a group of classes."""
    frames: int
    """Frames in agreement that begin a sighting."""
    confidence: float
    """Confidence of the wanted class or group from which on a frame agrees, 0 to 1."""
    absent_s: float
    """Seconds without an agreeing frame that end a sighting."""
    cooldown_s: float
    """Seconds between two alerts of one camera, at least."""
    who: str
    """The user."""
    at_ms: int
    """Time of the decision, Unix time in milliseconds."""

    @property
    def window_frames(self) -> int:
        """The number of newest frames of which `frames` must agree, their majority."""
        return 2 * self.frames - 1


class RuleFrame(NamedTuple):
    """One frame as a rule reads it."""

    at_ms: int
    """Time of the recording, Unix time in milliseconds."""
    boot: int
    seq: int
    confidence: float | None
    """Confidence of the wanted class or group if it agrees; None if it does not."""


class Sighting(NamedTuple):
    """The state of one camera and one class or group. Immutable: `advance` returns a new one."""

    recent: tuple[RuleFrame, ...] = ()
    """The newest frames, oldest first."""
    at_ms: int = 0
    """Time of the newest frame."""
    seen_ms: int = 0
    """Time of the newest agreeing frame."""
    raised_ms: int | None = None
    """Time of the last alert; None before the first."""
    lasts: bool = False
    """Whether the sighting of that alert has not ended."""

    @property
    def agreeing(self) -> list[RuleFrame]:
        """Return the agreeing ones of the newest frames."""
        return [each for each in self.recent if each.confidence is not None]

    @property
    def confidence(self) -> float:
        """Return the mean confidence of the newest agreeing frames; 0 without any."""
        shares = [each.confidence for each in self.recent if each.confidence is not None]
        return sum(shares) / len(shares) if shares else 0.0


def confidence_of(
    rule: SightingRule, class_name: str, class_group: str, confidence: float, group_confidence: float
) -> float | None:
    """Return the confidence of the wanted class or group if the verdict agrees with the rule, else None."""
    if class_name == UNSURE or rule.wanted not in (class_name, class_group):
        return None
    found = confidence if rule.wanted == class_name else group_confidence
    return found if found >= rule.confidence else None


def lapse(rule: SightingRule, state: Sighting, now_ms: int) -> Sighting:
    """Return the state at `now_ms` if no further frame has come: after `absent_s` nothing of it lasts."""
    if now_ms - state.seen_ms < 1000 * rule.absent_s:
        return state
    return state._replace(recent=(), lasts=False)


def not_ahead(state: Sighting, now_ms: int) -> Sighting:
    """Return the state with no time after `now_ms`.

    After a clock was set back, a later time would delay the end and the next alert.
    """
    if state.at_ms <= now_ms:
        return state
    raised_ms = None if state.raised_ms is None else min(state.raised_ms, now_ms)
    return state._replace(at_ms=now_ms, seen_ms=min(state.seen_ms, now_ms), raised_ms=raised_ms)


def advance(rule: SightingRule, state: Sighting, frame: RuleFrame) -> Sighting:
    """Return the state after one more frame. The frame raises an alert if it changes `raised_ms`.

    An alert needs an agreeing frame, `frames` agreeing ones among the newest `window_frames` of one boot, no sighting
    that lasts, and `cooldown_s` since the last alert. No time of the state may be after that of the frame.
    """
    at_ms = frame.at_ms
    before = lapse(rule, state, at_ms)
    recent = (*(each for each in before.recent if each.boot == frame.boot), frame)[-rule.window_frames :]
    after = before._replace(recent=recent, at_ms=at_ms)
    if frame.confidence is None:
        return after
    after = after._replace(seen_ms=at_ms)
    rested = after.raised_ms is None or at_ms - after.raised_ms >= 1000 * rule.cooldown_s
    if after.lasts or not rested or len(after.agreeing) < rule.frames:
        return after
    return after._replace(raised_ms=at_ms, lasts=True)
