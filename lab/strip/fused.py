"""The statistics of probes together: one test whose false alarms stay within a rate.

Each statistic gets a part of the rate, so that all together flag at most that share of clean frames (union bound).
Thresholds come from the same clean pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.strip.calibrate import threshold_of
from schemas.evidence.alarms import KINDS, TYPICALITY


def parts(frr: float, statistics: Sequence[str]) -> list[float]:
    """Return the part of the rate `frr` that each of the named `statistics` gets, in their order.

    Typicality gets half, because it finds most. The others get equal parts of the rest. That was chosen on pictures
    that no published row judges.
    """
    others = sum(name != TYPICALITY for name in statistics)
    if not others or others == len(statistics):
        return [frr / len(statistics)] * len(statistics)
    return [frr / 2 if name == TYPICALITY else frr / 2 / others for name in statistics]


class Fused(NamedTuple):
    """Thresholds of the statistics, 0 for one that is not used. A frame below any is flagged."""

    strip_bits: float
    agreement: float = 0.0
    typicality: float = 0.0

    def flags(
        self, bits: NDArray[np.float64], agreement: NDArray[np.float64], typicality: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Return whether frames with these statistics (n,) are flagged: (n,)."""
        flagged: NDArray[np.bool_] = (
            (bits < self.strip_bits) | (agreement < self.agreement) | (typicality < self.typicality)
        )
        return flagged


def fused(
    bits: NDArray[np.float64], agreement: NDArray[np.float64], typicality: NDArray[np.float64], frr: float
) -> Fused:
    """Return thresholds that flag at most a share `frr` of clean frames, given all statistics (n,) of clean ones."""
    values = (bits, agreement, typicality)
    return Fused(*(threshold_of(each, part) for each, part in zip(values, parts(frr, KINDS), strict=True)))
