"""Rarity: how few clean frames have a value as low as a frame's, in octaves.

This makes statistics of different kinds comparable. Their sum is Fisher's (1932, section 21.1, "The combination of
probabilities from tests of significance"), with the logarithm to base 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

MOST_OCTAVES: Final = 16.0
"""Upper bound of a rarity: clean frames show nothing about rarer ones."""
LEAST_VALUE: Final = 2.0**-64
"""Lower bound of a value: statistics are compared by their logarithm."""


def rarity(values: NDArray[np.float64], quantiles: Sequence[float], power: float) -> NDArray[np.float64]:
    """Return the rarity (n,) of `values` (n,) among clean frames: −log₂ of the share of clean frames below the value.

    A share of about 2^−j of clean frames lies below `quantiles[j]`: from the largest value down, strictly. Between two
    quantiles, the rarity is linear in the logarithm of the value. Below the last one, it grows by `power` octaves for
    each octave of the value, as for a power law.
    """
    octaves = np.log2(np.maximum(values, LEAST_VALUE))
    known = np.log2(quantiles)
    within = np.interp(octaves, known[::-1], np.arange(len(known) - 1, -1, -1.0))
    beyond = np.maximum(known[-1] - octaves, 0) * power
    found: NDArray[np.float64] = np.minimum(within + beyond, MOST_OCTAVES)
    return found
