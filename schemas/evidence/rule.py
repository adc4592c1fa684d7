"""The settings of the rule of evidence: the weight of each kind of checked frame, and the limits of an alarm.

`schemas.evidence.track` applies the rule; `docs/adr/0008-evidence.md` gives the origin of the values.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SumRule(BaseModel):
    """A cumulative sum for one kind of frame. A frame adds its score less `allowance`, between `-fall` and `rise`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allowance: float
    """Amount that each frame takes off the sum."""
    rise: float = Field(gt=0)
    """Largest step up for one frame."""
    fall: float = Field(gt=0)
    """Largest step down for one frame."""
    limit: float = Field(gt=0)
    """Sum at which an alarm is raised."""
    stranger: float = Field(default=0.0, ge=0)
    """Depth below the threshold, in octaves, from which frames of a camera without a baseline count."""


class WholeRule(SumRule):
    """Whole frames show a trigger undamaged: they count by their depth in octaves.

    The depth is the smaller of two values. One is the distance of the entropy below the threshold. The other is its
    distance below the camera's own median less `spreads` of its spread.
    """

    spreads: float = Field(default=2.0, ge=0)
    """Spreads below the camera's own median from which the depth counts."""
    least_spread: float = Field(default=0.15, gt=0)
    """Lower bound of a camera's spread, in octaves."""
    passing: float = Field(default=0.0, ge=0)
    """Extra allowance in octaves for a camera that passes scenes: about one scene in a hundred lies deep."""
    passing_turns: float = Field(default=0.08, gt=0, le=1)
    """Share of frames at which the verdict turns, from which a camera counts as one that passes scenes."""


class DroppedRule(SumRule):
    """Frames with dropped pixels each show a different, small part of a trigger: they count by how unusual they are.

    The score has two parts: the fall of the entropy in the camera's own spreads, and the turns of the verdict. A
    trigger that works under some masks only turns the verdict from frame to frame. An object that passes turns it
    twice.
    """

    least_spread: float = Field(default=0.06, gt=0)
    """Lower bound of a camera's spread."""
    turn: float = Field(default=3.5, ge=0)
    """Largest score of one turn of the verdict; it is less for a camera whose verdict often turns."""
    turn_rate: float = Field(default=0.35, gt=0, lt=1)
    """Share of frames at which the verdict turns before a trigger."""
    recent_frames: int = Field(default=12, ge=1)
    """Frames in which turns are counted."""
    free_turns: int = Field(default=3, ge=0)
    """Minimum number of turns among the previous `recent_frames` for a turn to count."""


class EvidenceRule(BaseModel):
    """The conditions under which checked frames of a camera are evidence of a trigger.

    The rule waits at most `patience_s` for a missing frame.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    whole: WholeRule = WholeRule(allowance=0.25, rise=5, fall=2, limit=6, passing=1.75)
    dropped: DroppedRule = DroppedRule(allowance=1.6, rise=2, fall=0.25, limit=9, stranger=0.5)
    baseline_probes: int = Field(default=12, ge=1)
    """Checked frames from which a camera has a baseline."""
    history_probes: int = Field(default=48, ge=1, le=1000)
    """Checked frames that the baseline keeps, the newest ones."""
    unsettled_probes: int = Field(default=8, ge=0)
    """Newest checked frames that the baseline leaves out."""
    calm_probes: int = Field(default=5, ge=1)
    """Consecutive unsuspicious frames that end an episode; during an episode there is no other alarm."""
    stranger_depth: float = Field(default=5.0, ge=0)
    """Octaves below the threshold at which a camera that was suspect from its first frame needs no other evidence."""
    flip_frames: int = Field(default=12, ge=1)
    """Verdicts from which flips count, for a camera that was suspect from its first frame."""
    flip_share: float = Field(default=0.08, ge=0, le=1)
    """Share of verdicts that must differ from the most frequent one: a clean scene keeps its class under all masks."""
    stranger_frames: int = Field(default=60, ge=1)
    """Verdicts, or `history_probes` checked frames, after which such a camera has a clean scene of low entropy."""
    patience_s: float = Field(default=5.0, ge=0)
    """Longest wait for a missing frame, in seconds."""
