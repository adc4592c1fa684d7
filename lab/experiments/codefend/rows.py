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
class DisagreementRow:
    """STRIP, drop disagreement and both together on one backdoored model, whole frames.

    `detected` are shares of the stamped pictures that reach the target, `frr` of clean ones.
    """

    model: str
    ratio: float
    drops: int
    clean: int
    poisoned: int
    auc_strip: float
    auc_drop: float
    frr_strip: float
    detected_strip: float
    frr_drop: float
    detected_drop: float
    frr_fused: float
    detected_fused: float


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
