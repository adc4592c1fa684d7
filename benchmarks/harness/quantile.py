"""Quantiles of measured times, by the same rule everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(values: Sequence[float], q: float) -> float | None:
    """Return the smallest of the values that a share `q` of them, above 0 and at most 1, does not exceed.

    None of an empty sequence.
    """
    return sorted(values)[math.ceil(q * len(values)) - 1] if values else None
