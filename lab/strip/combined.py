"""All statistics of probes together: their tails on clean pictures, and the p-value below which a frame is suspect.

The p-value is Fisher's combination, in which weak evidence of several statistics adds up. With a threshold for each,
every statistic would have only a part of the false alarms, and would set its threshold by very few clean pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lab.data import LabelledPictures
from lab.strip.disagreement import agreements
from lab.strip.measure import check
from lab.strip.scaled_norms import depth, doubts
from lab.strip.typicality import feature_values, fitted
from processors.bundle import CleanTail, CombinedThreshold
from processors.bundle.strip_table import DISAGREEMENT, ENTROPY, LAYER_DISAGREEMENT, SCALED_NORMS, TYPICALITY
from processors.pipeline import Pipeline
from processors.stages.rarity import LEAST_VALUE
from processors.stages.scaled_norms import ScaledNorms
from processors.stages.typicality import CleanFeatures
from schemas.errors import ConfigError

EVERY: Final = (ENTROPY, DISAGREEMENT, TYPICALITY, LAYER_DISAGREEMENT, SCALED_NORMS)
TAIL: Final = 20
"""Fewest clean pictures below a quantile, and those to which the power law is fitted."""
STEEPEST: Final = 64.0
"""Largest power: values that are nearly alike show no slope."""
CONFIDENCE: Final = 0.9
"""Probability that the threshold flags no more clean frames than asked."""
_APART: Final = 1 - 1e-6
"""Factor between quantiles that are equal on clean pictures: a value that many share is not rare."""


def clean_tail(values: NDArray[np.float64]) -> CleanTail:
    """Return the tail of a statistic, given its values (n,) on clean pictures: quantiles, and a power law below them.

    The power is the maximum likelihood estimate of Hill (1975), from the pictures below the last quantile.
    """
    ordered = np.sort(np.maximum(values, LEAST_VALUE))
    quantiles, share = [float(ordered[-1])], 0.5
    while len(ordered) * share >= TAIL:
        quantiles.append(min(float(np.quantile(ordered, share)), quantiles[-1] * _APART))
        share /= 2
    lowest = ordered[: max(1, round(len(ordered) * share * 2))]
    slope = float(np.log(quantiles[-1] / np.minimum(lowest, quantiles[-1])).mean())
    return CleanTail(quantiles=quantiles, power=min(STEEPEST, 1 / max(slope, 1 / STEEPEST)))


def combined(values: Mapping[str, NDArray[np.float64]], frr: float, norms: int | None = None) -> CombinedThreshold:
    """Return the table for the statistics with these `values` (n,) on clean pictures, to flag at most a share `frr`.

    `norms` is the number of amplified batch norms, if that statistic is among them. Raises ConfigError for fewer than
    `TAIL` pictures.
    """
    least = min(map(len, values.values()))
    if least < TAIL:
        raise ConfigError(f"clean pictures: expected at least {TAIL} besides the overlays, got {least}. Give more.")
    tails = {name: clean_tail(each) for name, each in values.items()}
    sums = np.sum([tails[name].rarity(each) for name, each in values.items()], axis=0)
    together = clean_tail(np.exp2(-sums))
    p_values = np.exp2(-together.rarity(np.exp2(-sums)))
    # Rounded down: a frame at the threshold is still not flagged.
    threshold = math.floor(np.sort(p_values)[flagged(least, frr)] * 1e9) / 1e9
    return CombinedThreshold(
        threshold=max(threshold, 1e-9), frr=frr, together=together, entropy=tails[ENTROPY],
        disagreement=tails[DISAGREEMENT], typicality=tails.get(TYPICALITY),
        layer_disagreement=tails.get(LAYER_DISAGREEMENT), scaled_norms=tails.get(SCALED_NORMS), norms=norms,
    )  # fmt: skip


def flagged(count: int, frr: float) -> int:
    """Return how many of `count` clean pictures may lie below a threshold that flags at most a share `frr` of all.

    The threshold is a tolerance limit (Wilks 1941): with a probability of `CONFIDENCE`, at most a share `frr` of other
    clean frames lies below it. Even 0 of few pictures promise less.
    """
    below, share = 0, 0.0
    while (share := share + _chance_of(below, count, frr)) <= 1 - CONFIDENCE:
        below += 1
    return max(0, below - 1)


def _chance_of(below: int, count: int, frr: float) -> float:
    """Return the binomial probability that `below` of `count` pictures are among the share `frr`."""
    ways = math.lgamma(count + 1) - math.lgamma(below + 1) - math.lgamma(count - below + 1)
    return math.exp(ways + below * math.log(frr) + (count - below) * math.log1p(-frr))


@dataclass(frozen=True)
class Statistics:
    """The statistics of probes that a network allows: those by features need `features`, and scaled batch norms
    `scaled`.
    """

    pipeline: Pipeline
    features: CleanFeatures | None
    scaled: ScaledNorms | None

    @classmethod
    def of_bundle(cls, pipeline: Pipeline) -> Statistics:
        """Return those of the bundle's table `strip.combined`."""
        return cls(pipeline, pipeline.bundle.features, pipeline.bundle.scaled)

    def measured(
        self,
        pictures: LabelledPictures,
        advance: Callable[[int], object] = lambda count: None,
        known: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> dict[str, NDArray[np.float64]]:
        """Return the values (n,) of all statistics on whole pictures. Those of STRIP may be `known`.

        STRIP stops early on clean pictures, as it does live.
        """
        found = dict(known or {})
        if ENTROPY not in found:
            found[ENTROPY] = check(self.pipeline, pictures, sequential=True, advance=advance).bits
        found[DISAGREEMENT] = agreements(self.pipeline, pictures, advance=advance)
        if self.features is not None:
            found |= feature_values(self.pipeline, self.features, pictures, advance)
        if self.scaled is not None:
            found[SCALED_NORMS] = doubts(self.pipeline, self.scaled, pictures, advance)
        return {name: found[name] for name in EVERY if name in found}


class Fit(NamedTuple):
    """Statistics that know clean pictures, and their values on those."""

    statistics: Statistics
    known: dict[str, NDArray[np.float64]]
    """Values (n,) on the clean pictures that are no overlays; the features judge each by the others."""
    norms: int | None
    """Batch norms that are amplified; None without that statistic."""


def fit(
    pipeline: Pipeline,
    clean: LabelledPictures,
    overlays: NDArray[np.intp],
    advance: Callable[[int], object] = lambda count: None,
) -> Fit:
    """Return the statistics that the network allows, fitted to `clean` pictures.

    Those at the places `overlays` are the bundle's overlays: no statistic sees one under itself. Raises ConfigError for
    too few pictures.
    """
    bundle = pipeline.bundle
    usual, norms = fitted(pipeline, clean, advance), depth(bundle, clean)
    scaled = None
    if norms is not None:
        assert isinstance(bundle.network, nn.Module)
        scaled = ScaledNorms.of(bundle.network, norms)
    others = clean.take(np.setdiff1d(np.arange(len(clean)), overlays))
    known = Statistics(pipeline, None, scaled).measured(others, advance)
    if usual is not None:
        known |= {name: np.delete(values, overlays) for name, values in usual.values.items()}
        known = {name: known[name] for name in EVERY if name in known}
    return Fit(Statistics(pipeline, None if usual is None else usual.features, scaled), known, norms)
