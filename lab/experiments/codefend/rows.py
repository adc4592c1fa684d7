"""Records of the experiment on backdoors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelRow:
    """A sick model, before anything is done about it."""

    model: str
    data: str
    network: str
    trigger: str
    rate: float
    target: int
    clean_accuracy: float
    """Of the official test split, or what is judged on of it."""
    attack_success: float
    floor: float
    """Share of the stamped pictures that the clean network of the same kind sends to the target."""
    clean_network: float
    """That network's accuracy."""
    recovered: float
    """Share of the stamped pictures that the sick model names what they show."""


@dataclass(frozen=True)
class DetectionRow:
    """STRIP on one sick model."""

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
    """FAR of those that reach the target."""
    threshold_bits: float
    mean_passes: float
    """Of clean frames."""
    seconds: float


@dataclass(frozen=True)
class RepairRow:
    """A way of curing one sick model."""

    model: str
    method: str
    quarantine: str
    """What the quarantine was made of."""
    clean_before: float
    clean_after: float
    success_before: float
    success_after: float
    recovered_before: float
    recovered_after: float
    target_found: int | None
    activation: float | None
    """Share of the generated frames that the sick model sends to the target."""
    change_outside: float | None
    """Mean change of a generated frame outside the trigger."""
    seconds: float
    published: bool
    """False when the repair refused its own result."""

    @property
    def key(self) -> tuple[object, ...]:
        """The model, the method and the quarantine."""
        return self.model, self.method, self.quarantine
