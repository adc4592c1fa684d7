"""The settings of the rule of evidence: the weight of a checked frame, and the limits of an alarm.

`schemas.evidence.track` applies the rule; `docs/adr/0008-evidence.md` gives the origin of the values.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SumRule(BaseModel):
    """The cumulative sum. A frame adds its depth in octaves less `allowance`, between `-fall` and `rise`.

    The depth is the smaller of two values. One is the distance of the entropy below the threshold. The other is its
    distance below the camera's own median less `spreads` of its spread.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    allowance: float
    """Amount that each frame takes off the sum."""
    rise: float = Field(gt=0)
    """Largest step up for one frame."""
    fall: float = Field(gt=0)
    """Largest step down for one frame."""
    limit: float = Field(gt=0)
    """Sum at which an alarm is raised."""
    spreads: float = Field(default=2.0, ge=0)
    """Spreads below the camera's own median from which the depth counts."""
    least_spread: float = Field(default=0.15, gt=0)
    """Lower bound of a camera's spread, in octaves."""
    passing: float = Field(default=0.0, ge=0)
    """Extra allowance in octaves for a camera that passes scenes: about one scene in a hundred lies deep."""
    passing_turns: float = Field(default=0.08, gt=0, le=1)
    """Share of frames at which the verdict turns, from which a camera counts as one that passes scenes."""


class EvidenceRule(BaseModel):
    """The conditions under which checked frames of a camera are evidence of a trigger.

    The rule waits at most `patience_s` for a missing frame.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sum: SumRule = SumRule(allowance=0.25, rise=5, fall=2, limit=6, passing=1.75)
    """The sum of STRIP's entropies."""
    combined: SumRule = SumRule(allowance=0.25, rise=3, fall=1, limit=16, spreads=0.5)
    """The sum of the p-values, which replaces that of the entropies if the bundle has several statistics."""
    entropy_octaves: float = 0.0
    """Octaves above the frame's threshold from which entropies count; below 0 they lie deeper."""
    combined_octaves: float = 0.0
    """Octaves above the frame's threshold from which p-values count.

    Above 0 they also find triggers that are weak or miss their target, and raise an alert on unusual clean scenes.
    """
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

    @property
    def of_p_values(self) -> EvidenceRule:
        """The rule for p-values: their own sum."""
        return self.model_copy(update={"sum": self.combined})
