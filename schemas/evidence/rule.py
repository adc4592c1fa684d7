"""What the rule of evidence is set to: how each kind of checked frame counts, and when it is an alarm.

`schemas.evidence.track` applies it; `docs/adr/0008-evidence.md` says how the values came about.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SumRule(BaseModel):
    """How the sum of one kind of frame moves: by what a frame says less `allowance`, within `-fall` and `rise`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allowance: float
    """Amount that each frame takes off the sum."""
    rise: float = Field(gt=0)
    """Most that one frame adds."""
    fall: float = Field(gt=0)
    """Most that one frame takes off."""
    limit: float = Field(gt=0)
    """Sum at which there is an alarm."""
    stranger: float = Field(default=0.0, ge=0)
    """Octaves below the threshold from which on frames of a camera without a baseline count."""


class WholeRule(SumRule):
    """Whole frames show a trigger undamaged: they count by their depth in octaves.

    It is the smaller of two: how far the entropy lies below the threshold, and how far below the camera's own median
    less `spreads` of its spread.
    """

    spreads: float = Field(default=2.0, ge=0)
    """Spreads below the camera's own median from which on the depth counts."""
    least_spread: float = Field(default=0.15, gt=0)
    """Smallest spread that a camera is given, in octaves."""
    passing: float = Field(default=0.0, ge=0)
    """What a camera that passes scenes is allowed on top, in octaves: one scene in some hundred lies deep."""
    passing_turns: float = Field(default=0.08, gt=0, le=1)
    """Such a camera is known by its verdict, which turns at this share of its frames or more."""


class DroppedRule(SumRule):
    """Frames with dropped pixels show little of a trigger, and each another part: they count by how unusual they are.

    That is how many of the camera's own spreads the entropy has fallen by, and how often the verdict turns from one
    frame to the next, as it does while a trigger works under some masks only. Something that passes turns it twice.
    """

    least_spread: float = Field(default=0.06, gt=0)
    """Smallest spread that a camera is given."""
    turn: float = Field(default=3.5, ge=0)
    """What a turn of the verdict adds at most, the less the more often the camera's verdict turns anyway."""
    turn_rate: float = Field(default=0.35, gt=0, lt=1)
    """The share of frames at which the verdict turns before a trigger."""
    recent_frames: int = Field(default=12, ge=1)
    """Frames in which turns are counted."""
    free_turns: int = Field(default=3, ge=0)
    """A turn adds nothing unless there were so many among the `recent_frames` before it."""


class EvidenceRule(BaseModel):
    """When checked frames of a camera are evidence of a trigger; a missing frame is waited for `patience_s` at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    whole: WholeRule = WholeRule(allowance=0.25, rise=5, fall=2, limit=6, passing=1.75)
    dropped: DroppedRule = DroppedRule(allowance=1.6, rise=2, fall=0.25, limit=9, stranger=0.5)
    baseline_probes: int = Field(default=12, ge=1)
    """Checked frames from which on there is a baseline."""
    history_probes: int = Field(default=48, ge=1, le=1000)
    """Checked frames that are kept for it, the newest ones."""
    unsettled_probes: int = Field(default=8, ge=0)
    """Of those, the newest, which it is not taken from."""
    calm_probes: int = Field(default=5, ge=1)
    """After an alarm, so many frames in a row that are not suspect end the episode; until then there is no other."""
    stranger_depth: float = Field(default=5.0, ge=0)
    """Octaves below the threshold at which a camera that was suspect from its first frame needs no other evidence."""
    flip_frames: int = Field(default=12, ge=1)
    """Of a camera that was suspect from its first frame on: verdicts from which on their flips count."""
    flip_share: float = Field(default=0.08, ge=0, le=1)
    """The share of them that must differ from the most frequent one: a clean scene keeps its class under all masks."""
    stranger_frames: int = Field(default=60, ge=1)
    """Verdicts after which such a camera is taken to look at a clean scene of low entropy; or after as many checked
    frames as are kept."""
    patience_s: float = Field(default=5.0, ge=0)
    """Seconds to wait for a missing frame, at most."""
