"""Records of the experiment on backdoors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelRow:
    """A backdoored model before any repair."""

    model: str
    data: str
    network: str
    trigger: str
    rate: float
    target: int
    clean_accuracy: float
    """Accuracy on the official test split, or on the measured part of it."""
    attack_success: float
    floor: float
    """Share of the stamped pictures that the clean network of the same kind classifies as the target."""
    clean_network: float
    """Accuracy of the clean network of the same kind."""
    recovered: float
    """Share of the stamped pictures that the backdoored model classifies correctly."""


@dataclass(frozen=True)
class DetectionRow:
    """STRIP on one backdoored model."""

    model: str
    frames: str
    """`whole`, or the drop ratio of dropped and rebuilt frames."""
    sequential: bool
    clean: int
    poisoned: int
    attack_success: float
    frr: float
    frr_low: float
    frr_high: float
    far: float
    far_low: float
    far_high: float
    far_effective: float
    """FAR of the stamped pictures that reach the target."""
    threshold_bits: float
    mean_passes: float
    """Mean number of passes per clean frame."""
    seconds: float


@dataclass(frozen=True)
class DetectorRow:
    """A statistic, or all together, on one backdoored model, whole frames.

    `frr` is the share of clean test pictures that are flagged, `detected` that of the stamped ones that reach the
    target, both with intervals of 95 %.
    """

    model: str
    statistic: str
    depth: int | None
    """Scaled batch norms of the first network; None for other statistics."""
    clean: int
    poisoned: int
    auc: float
    """Area under the ROC curve."""
    frr: float
    frr_low: float
    frr_high: float
    detected: float
    detected_low: float
    detected_high: float


@dataclass(frozen=True)
class CameraRow:
    """A simulated camera that shows pictures of one backdoored model, judged by all statistics together.

    Episodes begin with clean probes, then the trigger is in every frame. `alarmed` is the share with an alarm within 40
    probes; `from_start` is the same without clean probes. `false_alarms` are those in a year, with an interval of 95 %.
    """

    model: str
    thresholds: str
    """`usual`, that of the usual settings, or `chosen` on the defender's clean pictures."""
    octaves: float
    """Octaves of the camera's threshold above the frame's."""
    clean: int
    """Clean pictures that the camera shows."""
    episodes: int
    median_probes: float | None
    """Probes until the alarm; None if that many episodes have none."""
    p95_probes: float | None
    alarmed: float
    alarmed_low: float
    alarmed_high: float
    from_start: float
    clean_starts: float
    """Share of starts without a trigger that raise an alarm in their first 64 probes."""
    false_alarms: float
    false_alarms_low: float
    false_alarms_high: float
    false_alarms_bound: float
    """The upper end, if a share of 3 ÷ `clean` of the probes had the deepest possible scores."""
    allowed: float
    """False alarms in a year that the choice allows."""
    exceeds: bool
    """True if there are more, here or for every candidate on the pictures that chose."""
    few_passages: bool
    """True if an estimate or the bound rests on too few passages, see `SplittingRow`."""


@dataclass(frozen=True)
class SplittingRow:
    """False alarms of a camera in a year by multilevel splitting, with their interval of 95 %."""

    model: str
    thresholds: str
    scores: str
    """`measured`, or `deeper` for the bound."""
    false_alarms: float
    low: float
    high: float
    passages: list[int]
    """Passages of each level in all repetitions together, the alarm's last."""
    few: bool
    """True if a level has too few of them."""


@dataclass(frozen=True)
class StillRow:
    """A simulated camera that shows each scene for several probes, judged by one backdoored model.

    `false_alarms` is the share of appearances of a scene that raise an alarm, `a_year` the number of these in a
    year, both with intervals of 95 % over scenes. `alarmed` is the share of attacks with an alarm within 40 probes.
    """

    model: str
    limited: bool
    """Whether the evidence of one scene is limited, as the recorder does."""
    stay: int
    """Probes of each scene."""
    views: int
    """Number of scenes that the camera goes round; 0 if each scene is new."""
    scenes: int
    """Clean scenes."""
    flagged_always: float
    """Share of the clean scenes whose frames are all flagged."""
    false_alarms: float
    false_alarms_low: float
    false_alarms_high: float
    a_year: float
    a_year_low: float
    a_year_high: float
    episodes: int
    median_probes: float | None
    """Probes until the alarm; None if that many episodes have none."""
    alarmed: float
    alarmed_low: float
    alarmed_high: float
    alarmed_ever: float
    """Share of attacks with an alarm within 400 probes."""


@dataclass(frozen=True)
class RepairRow:
    """One method of repair on one backdoored model."""

    model: str
    method: str
    quarantine: str
    """The kind of the quarantine."""
    clean_before: float
    clean_after: float
    success_before: float
    success_after: float
    recovered_before: float
    recovered_after: float
    target_found: int | None
    activation: float | None
    """Share of the generated frames that the backdoored model classifies as the target."""
    change_outside: float | None
    """Mean change of a generated frame outside the trigger."""
    seconds: float
    published: bool
    """False if the repair rejected its own result."""

    @property
    def key(self) -> tuple[object, ...]:
        """The model, the method and the quarantine."""
        return self.model, self.method, self.quarantine
