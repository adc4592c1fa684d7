"""The number that tables print after ±."""

from __future__ import annotations


def margin(value: float, low: float, high: float) -> float:
    """Return the distance from a figure to the farther end of its interval.

    Half of the width would be too small near 0 and 1, where an interval is not centred: no picture of 16 right has the
    interval 0 to .19.
    """
    return max(value - low, high - value)
