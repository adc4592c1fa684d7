"""The `strip` table of a bundle's `model.toml`: overlays, thresholds and the limits of the sequential mode."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from processors.stages.strip import Round, Statistic
from schemas.limits import MAX_DROPPED_PER_BLOCK

_Bits = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StripThreshold(BaseModel):
    """The entropy in bits below which a frame is suspect; `frr` is the share of clean frames it was set for.

    `statistic` selects the entropy; see `processors.stages.strip.spread_bits`. A frame that reaches `accept_bits[i]`
    after `accept_after[i]` overlays is accepted without the others. That comparison uses `accept_statistic`, or
    `statistic` if there is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    threshold_bits: _Bits
    """The entropy in bits below which a frame is suspect."""
    frr: float = Field(gt=0, lt=1)
    """The share of clean frames that the threshold was set for."""
    statistic: Statistic = "mean"
    """The kind of entropy: the paper's mean over overlays, that of the mixture, or the odds of the most unusual class.
    """
    usual_odds_bits: list[Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=list)
    """For the statistic `odds`: log odds of each class that clean frames hardly exceed."""
    accept_after: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    """Numbers of overlays after which a frame may be accepted without the others; ascending."""
    accept_bits: list[_Bits] = Field(default_factory=list)
    """Bits that a frame must reach then, one number for each of `accept_after`, none below `threshold_bits`."""
    accept_statistic: Literal["joint"] | None = None
    """Statistic for `accept_bits` if it is not `statistic`; only with the statistic `mean`."""

    @model_validator(mode="after")
    def _one_limit_a_round(self) -> Self:
        if len(self.accept_bits) != len(self.accept_after):
            raise ValueError(
                f"expected as many accept_bits as accept_after, got {len(self.accept_bits)} for "
                f"{len(self.accept_after)}"
            )
        if (self.statistic == "odds") != bool(self.usual_odds_bits):
            raise ValueError("usual_odds_bits: expected one number a class with the statistic odds, and none without")
        if self.accept_statistic is not None and self.statistic != "mean":
            raise ValueError(f"accept_statistic: expected none with the statistic {self.statistic}")
        if sorted(set(self.accept_after)) != self.accept_after:
            raise ValueError(f"accept_after: expected ascending numbers, got {self.accept_after}")
        if any(bits < self.threshold_bits for bits in self.accept_bits):
            raise ValueError(f"accept_bits: expected at least threshold_bits, got {min(self.accept_bits)}")
        return self

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The limits of the sequential mode."""
        return tuple(map(Round, self.accept_after, self.accept_bits))


class DroppedStripThreshold(StripThreshold):
    """The threshold for frames of which `dropped_per_block` of 64 pixels are missing."""

    dropped_per_block: int = Field(ge=1, le=MAX_DROPPED_PER_BLOCK)
    """Missing pixels in each block of 64; one table for each number."""


class DisagreementThreshold(BaseModel):
    """The agreement with its label behind drops below which a whole frame is suspect, besides STRIP's threshold.

    `frr` is the share of clean frames that it was set for. STRIP's own `frr` is the other part of the rate of both.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    threshold: float = Field(ge=0, le=1)
    """The mean probability of the label below which a frame is suspect; see `processors.stages.disagreement`."""
    frr: float = Field(gt=0, lt=1)
    """The share of clean frames that the threshold was set for."""


class TypicalityThreshold(BaseModel):
    """The typicality of its features below which a whole frame is suspect, besides STRIP's threshold.

    `frr` is the share of clean frames that it was set for, as in `DisagreementThreshold`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    features: str
    """The features of clean frames: a file of the bundle in the format safetensors, with `means` (classes, D), `known`
    (classes,) and `whitening` (D, K); see `processors.stages.typicality`.
    """
    layers: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1, max_length=16)
    """The layers of the network whose channel means are the features, D in all."""
    log_mean: float = Field(allow_inf_nan=False)
    """Mean of the logarithms of clean frames' distances."""
    log_spread: float = Field(gt=0, allow_inf_nan=False)
    """Their standard deviation."""
    threshold: float = Field(ge=0, le=1)
    """The typicality below which a frame is suspect."""
    frr: float = Field(gt=0, lt=1)
    """The share of clean frames that the threshold was set for."""


class StripSettings(StripThreshold):
    """STRIP's overlays, the threshold of whole frames, and those of frames with dropped pixels."""

    overlays: str
    """Clean pictures that are laid over frames: a file of the bundle, (N, height, width, channels) uint8."""
    clamped: bool = False
    """True clamps the sum of frame and overlay to [0, 1]; see `processors.stages.strip.overlaid_logits`."""
    disagreement: DisagreementThreshold | None = None
    """The threshold of drop disagreement on whole frames; none leaves it out."""
    typicality: TypicalityThreshold | None = None
    """The threshold of the features' typicality on whole frames, for the format `safetensors`; none leaves it out."""
    dropped: list[DroppedStripThreshold] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_threshold_a_ratio(self) -> Self:
        ratios = [each.dropped_per_block for each in self.dropped]
        if len(set(ratios)) != len(ratios):
            raise ValueError(f"dropped: expected one table for each dropped_per_block, got {ratios}")
        return self

    @property
    def files(self) -> frozenset[str]:
        """The files of the bundle that belong to the table."""
        return frozenset({self.overlays} | (set() if self.typicality is None else {self.typicality.features}))

    def threshold(self, dropped_per_block: int) -> StripThreshold | None:
        """Return the threshold for this many dropped pixels a block, 0 for whole frames; None without calibration."""
        if not dropped_per_block:
            return self
        return next((each for each in self.dropped if each.dropped_per_block == dropped_per_block), None)
