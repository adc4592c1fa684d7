"""The settings of the rule of evidence: the weight of a checked frame, and the limits of an alarm.

`schemas.evidence.track` applies the rule; `docs/adr/0008-evidence.md` and `docs/adr/0083-evidence-of-a-scene.md` give
the origin of the values.
"""

from __future__ import annotations

from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_OLDER: Final = 1000
"""Maximum number of frames of known scenes that are older than a camera's newest ones."""


class SceneRule(BaseModel):
    """The evidence of one scene of a camera. Its probes resemble each other, so they are no independent evidence.

    A scene with enough frames in the camera's history is judged against these frames. Any other scene may just be
    unusual, however many of its probes are. It adds at most `limit` to the sum.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    limit: float = Field(default=8.0, gt=0)
    """Largest part of the sum that a scene without enough frames in the history adds."""
    probes: int = Field(default=8, ge=1)
    """Minimum number of frames of a scene in the history for a baseline of its own."""
    spreads: float = Field(default=2.0, ge=0)
    """Number of spreads below the scene's own median from which the depth is measured."""
    low_quantile: float = Field(default=0.2, ge=0, lt=0.5)
    """Quantile of the scene's frames that marks the lower end of its spread: a few frames with a trigger, seen before,
    do not lower it."""
    least_spread: float = Field(default=0.5, gt=0)
    """Lower bound of a scene's spread, in octaves."""
    remembered: int = Field(default=12, ge=0)
    """Maximum number of known scenes, `probes` frames of each, that the history keeps besides the newest
    `history_probes` frames. A processor recognises at most 12 scenes of a camera."""


class SumRule(BaseModel):
    """The cumulative sum. A frame adds its depth in octaves less `allowance`, between `-fall` and `rise`.

    The depth is the smaller of two values. One is the distance of the entropy below the threshold. The other is its
    distance below the camera's own median less `spreads` of its spread.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    allowance: float
    """Amount that is subtracted from the sum for each frame."""
    rise: float = Field(gt=0)
    """Largest step up for one frame."""
    fall: float = Field(gt=0)
    """Largest step down for one frame."""
    limit: float = Field(gt=0)
    """Sum at which an alarm is raised."""
    spreads: float = Field(default=2.0, ge=0)
    """Number of spreads below the camera's own median from which the depth is measured."""
    least_spread: float = Field(default=0.15, gt=0)
    """Lower bound of a camera's spread, in octaves."""
    passing: float = Field(default=0.0, ge=0)
    """Extra allowance in octaves for a camera with changing scenes, of which about one in a hundred has a low
    entropy."""
    passing_turns: float = Field(default=0.08, gt=0, le=1)
    """Share of frames with another verdict than the frame before, from which a camera counts as one with changing
    scenes."""


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
    """Distance of the camera's threshold for entropies above the frame's threshold, in octaves (factors of two). If
    negative, only lower entropies count."""
    combined_octaves: float = 0.0
    """Distance of the camera's threshold for p-values above the frame's threshold, in octaves (factors of two).

    Above 0 they also find triggers that are weak or miss their target, and raise more alerts on clean scenes.
    """
    baseline_probes: int = Field(default=12, ge=1)
    """Minimum number of checked frames for a camera's baseline."""
    history_probes: int = Field(default=48, ge=1, le=1000)
    """Maximum number of checked frames in the camera's baseline, the newest ones."""
    unsettled_probes: int = Field(default=8, ge=0)
    """Number of newest checked frames that the baseline leaves out."""
    calm_probes: int = Field(default=5, ge=1)
    """Consecutive unsuspicious frames that end an episode; during an episode there is no other alarm."""
    stranger_depth: float = Field(default=5.0, ge=0)
    """Octaves below the threshold at which a camera that was suspect from its first frame needs no other evidence."""
    flip_frames: int = Field(default=12, ge=1)
    """Minimum number of verdicts before `flip_share` counts, for a camera that was suspect from its first frame."""
    flip_share: float = Field(default=0.08, ge=0, le=1)
    """Share of verdicts that must differ from the most frequent one: a clean scene keeps its class under all masks."""
    stranger_frames: int = Field(default=60, ge=1)
    """Verdicts, or `history_probes` checked frames, after which a camera that was suspect from its first frame is
    assumed to show a clean scene of low entropy."""
    scenes: SceneRule = SceneRule()
    """The evidence of one scene, by p-values. STRIP alone judges the probes of all scenes alike."""
    patience_s: float = Field(default=5.0, ge=0)
    """Longest wait for a missing frame, in seconds."""

    @model_validator(mode="after")
    def _check_scenes(self) -> Self:
        if self.scenes.probes > self.history_probes:
            raise ValueError(
                f"evidence.scenes.probes: expected at most evidence.history_probes, {self.history_probes}, "
                f"got {self.scenes.probes}. Correct one."
            )
        if self.scenes.remembered * self.scenes.probes > MAX_OLDER:
            raise ValueError(
                f"evidence.scenes.remembered: expected at most {MAX_OLDER // self.scenes.probes} ({MAX_OLDER:,} "
                f"frames, {self.scenes.probes} for each scene), got {self.scenes.remembered}. Correct one."
            )
        if self.scenes.limit >= self.combined.limit:
            raise ValueError(
                f"evidence.scenes.limit: expected less than evidence.combined.limit, {self.combined.limit:g}, "
                f"got {self.scenes.limit:g}. Correct one."
            )
        return self

    @property
    def of_p_values(self) -> EvidenceRule:
        """The rule for p-values: their own sum."""
        return self.model_copy(update={"sum": self.combined})
