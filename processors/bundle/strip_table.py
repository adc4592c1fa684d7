"""The `strip` table of a bundle's `model.toml`: overlays, thresholds and the limits of the sequential mode."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Final, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from processors.stages.rarity import rarity
from processors.stages.strip import Round, Statistic
from schemas.limits import MAX_DROPPED_PER_BLOCK

ENTROPY: Final = "entropy"
DISAGREEMENT: Final = "disagreement"
TYPICALITY: Final = "typicality"
LAYER_DISAGREEMENT: Final = "layer_disagreement"
SCALED_NORMS: Final = "scaled_norms"
_Bits = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PValues(NamedTuple):
    """The p-values (n,) of frames, and for each the name of the statistic that finds it most unusual, n in all."""

    values: NDArray[np.float64]
    statistics: list[str]


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


class Typicality(BaseModel):
    """The features of clean frames, for the typicality of a whole frame and for the disagreement of earlier layers.

    See `processors.stages.typicality` and `processors.stages.layer_disagreement`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    features: str
    """A file of the bundle in the format safetensors, with `means` (classes, D), `known` (classes,) and `whitening` (D,
    K), and `means_0`, `whitening_0` and so on for the layers of `earlier`.
    """
    layers: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1, max_length=16)
    """The layers of the network whose channel means are the features, D in all."""
    log_mean: float = Field(allow_inf_nan=False)
    """Mean of the logarithms of clean frames' distances."""
    log_spread: float = Field(gt=0, allow_inf_nan=False)
    """Their standard deviation."""
    earlier: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list, max_length=16)
    """Earlier layers, each with a discriminant of its channel means."""


class CleanTail(BaseModel):
    """The values of one statistic on clean frames, as `processors.stages.rarity` needs them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    quantiles: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(min_length=1, max_length=64)
    """Values below which a share of about 1, 1/2, 1/4, … of clean frames lies; strictly descending."""
    power: float = Field(gt=0, allow_inf_nan=False)
    """Octaves of the share for each octave of the value below the last quantile."""

    @model_validator(mode="after")
    def _descend(self) -> Self:
        if any(after >= before for before, after in pairwise(self.quantiles)):
            raise ValueError(f"quantiles: expected descending numbers, got {self.quantiles}")
        return self

    def rarity(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rarity (n,) of `values` (n,) in octaves."""
        return rarity(values, self.quantiles, self.power)


class CombinedThreshold(BaseModel):
    """The p-value below which a whole frame is suspect, by all statistics together, in place of STRIP's threshold.

    The rarities of a frame by its statistics are added, and the rarity of the sum is that of the frame: −log₂ of its
    p-value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    threshold: float = Field(gt=0, le=1)
    """The p-value below which a frame is suspect."""
    frr: float = Field(gt=0, lt=1)
    """The largest share of clean frames that should be flagged."""
    together: CleanTail
    """The tail of 2^−s for the sum s of a frame's rarities."""
    entropy: CleanTail
    """The tail of STRIP's entropy in bits, which may have stopped early."""
    disagreement: CleanTail
    """The tail of the agreement behind drops, see `processors.stages.disagreement`."""
    typicality: CleanTail | None = None
    """The tail of the typicality, for a bundle with the table `strip.typicality`."""
    layer_disagreement: CleanTail | None = None
    """The tail of the doubt of earlier layers, for a bundle with `strip.typicality.earlier`."""
    scaled_norms: CleanTail | None = None
    """The tail of the doubt, see `processors.stages.scaled_norms`, for a bundle with `norms`."""
    norms: int | None = Field(default=None, ge=1)
    """Batch norms that are amplified, the last ones of the network; for the format `safetensors`."""

    @model_validator(mode="after")
    def _norms_have_a_tail(self) -> Self:
        if (self.norms is None) != (self.scaled_norms is None):
            raise ValueError("norms: expected a number with the table scaled_norms, and none without")
        return self

    @property
    def tails(self) -> dict[str, CleanTail]:
        """The tails of the statistics that the bundle has, by name."""
        every = {
            ENTROPY: self.entropy, DISAGREEMENT: self.disagreement, TYPICALITY: self.typicality,
            LAYER_DISAGREEMENT: self.layer_disagreement, SCALED_NORMS: self.scaled_norms,
        }  # fmt: skip
        return {name: tail for name, tail in every.items() if tail is not None}

    def judge(self, values: Mapping[str, NDArray[np.float64]]) -> PValues:
        """Return the p-values of n frames, given the values (n,) of each of the statistics `tails`."""
        names = list(self.tails)
        rarities = np.stack([self.tails[name].rarity(values[name]) for name in names])
        together = self.together.rarity(np.exp2(-rarities.sum(0)))
        return PValues(np.exp2(-together), [names[place] for place in rarities.argmax(0).tolist()])


class StripSettings(StripThreshold):
    """STRIP's overlays, the threshold of whole frames, and those of frames with dropped pixels."""

    overlays: str
    """Clean pictures that are laid over frames: a file of the bundle, (N, height, width, channels) uint8."""
    clamped: bool = False
    """True clamps the sum of frame and overlay to [0, 1]; see `processors.stages.strip.overlaid_logits`."""
    combined: CombinedThreshold | None = None
    """The threshold of all statistics together on whole frames; none leaves STRIP alone."""
    typicality: Typicality | None = None
    """The features of clean frames, for the format `safetensors`; none leaves this statistic out."""
    dropped: list[DroppedStripThreshold] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_threshold_a_ratio(self) -> Self:
        ratios = [each.dropped_per_block for each in self.dropped]
        if len(set(ratios)) != len(ratios):
            raise ValueError(f"dropped: expected one table for each dropped_per_block, got {ratios}")
        return self

    @model_validator(mode="after")
    def _features_have_a_tail(self) -> Self:
        tail = None if self.combined is None else self.combined.typicality
        if (self.typicality is None) != (tail is None):
            raise ValueError("typicality: expected a table with combined.typicality, and none without")
        tail = None if self.combined is None else self.combined.layer_disagreement
        if (self.typicality is None or not self.typicality.earlier) != (tail is None):
            raise ValueError("typicality.earlier: expected layers with combined.layer_disagreement, and none without")
        return self

    @property
    def needs_module(self) -> bool:
        """Whether a statistic looks into the network, which only the format `safetensors` allows."""
        return self.typicality is not None or (self.combined is not None and self.combined.norms is not None)

    @property
    def files(self) -> frozenset[str]:
        """The files of the bundle that belong to the table."""
        return frozenset({self.overlays} | (set() if self.typicality is None else {self.typicality.features}))

    def threshold(self, dropped_per_block: int) -> StripThreshold | None:
        """Return the threshold for this many dropped pixels a block, 0 for whole frames; None without calibration."""
        if not dropped_per_block:
            return self
        return next((each for each in self.dropped if each.dropped_per_block == dropped_per_block), None)
