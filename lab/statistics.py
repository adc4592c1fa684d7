"""Intervals of 95 % for shares, means and sums, and tests of paired differences with their power."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

NORMAL_975: Final = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
DRAWS: Final = 5000
"""Resamplings of the bootstrap."""
MOST_DISTINCT: Final = 1000
"""Most distinct values for which pictures are resampled. Means over more are normal for all purposes."""
_SEED: Final = 0
_NEGLIGIBLE: Final = 1e-12
"""Probability of a number of discordant pairs below which it adds nothing to a power."""


class Interval(NamedTuple):
    """An estimate and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, count: int) -> Interval:
    """Return a share and its score interval (Wilson 1927), which stays inside [0, 1] and has a width at 0 and 1.

    Raises ValueError unless 0 ≤ `successes` ≤ `count` and `count` is at least 1.
    """
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"successes: expected 0 to {count} of at least 1, got {successes}")
    share, z2 = successes / count, NORMAL_975**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = NORMAL_975 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    # At the ends, rounding could put the bound on the wrong side of the share.
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Return the mean of `values` (n,), one per picture, and its percentile bootstrap interval (Efron 1979).

    A picture's value may be its mean over repeats, or the difference of two defences on it. In the latter case the
    interval is the paired one. Resampling n of n values is a multinomial draw over the distinct values, which are few
    for counts. For more than `MOST_DISTINCT` of them the interval is the normal one. Raises ValueError without a value.
    """
    if not len(values):
        raise ValueError("values: expected at least one, got none")
    distinct, counts = np.unique(values, return_counts=True)
    mean = float(values.mean())
    if len(distinct) == 1:
        return Interval(mean, mean, mean)
    if len(distinct) > MOST_DISTINCT:
        half = NORMAL_975 * float(values.std(ddof=1)) / math.sqrt(len(values))
        return Interval(mean, mean - half, mean + half)
    draws = np.random.default_rng(_SEED).multinomial(len(values), counts / len(values), size=DRAWS)
    low, high = np.quantile(draws @ distinct / len(values), (0.025, 0.975))
    return Interval(mean, min(mean, float(low)), max(mean, float(high)))


def log_interval(values: NDArray[np.float64]) -> Interval:
    """Return the mean of `values` (n,), and Student's interval of its logarithm (delta method).

    For positive estimates of one quantity whose errors are skewed, as those of rare events are: on the plain scale,
    the upper end would be too low. Some values may be 0. Raises ValueError without two values and a positive one.
    """
    from scipy.special import stdtrit  # making a bundle uses this module without scipy

    mean = float(values.mean()) if len(values) > 1 else 0.0
    if not mean > 0 or values.min() < 0:
        raise ValueError(f"values: expected two or more, at least 0, and one above it, got {values.tolist()}")
    spread = float(values.std(ddof=1)) / math.sqrt(len(values)) / mean
    factor = math.exp(float(stdtrit(len(values) - 1, 0.975)) * spread)
    return Interval(mean, mean / factor, mean * factor)


def paired_interval(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Interval:
    """Return the difference of two shares of the same n pictures, and its adjusted Wald interval (Bonett, Price 2012).

    `ours` and `theirs` have shape (n,). One is added to the count of each discordant pair for the interval, so it has a
    width even if the two never differ. Raises ValueError without a picture.
    """
    if not len(ours):
        raise ValueError("pairs: expected at least one, got none")
    count, wins, losses = len(ours), int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    more, fewer = (wins + 1) / (count + 2), (losses + 1) / (count + 2)
    half = NORMAL_975 * math.sqrt((more + fewer - (more - fewer) ** 2) / (count + 2))
    return Interval((wins - losses) / count, more - fewer - half, more - fewer + half)


def independent_difference(ours: Interval, theirs: Interval) -> Interval:
    """Return the difference of two figures of different pictures, and its interval by Newcombe's method (1998)."""
    value = ours.value - theirs.value
    below = math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    above = math.hypot(ours.high - ours.value, theirs.value - theirs.low)
    return Interval(value, value - below, value + above)


def difference_interval(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Interval:
    """Return the difference of two means over the same n pictures, and its paired interval.

    `ours` and `theirs` (n,) are each picture's shares of right answers. If all are 0 or 1, or never differ,
    `paired_interval` replaces a bootstrap interval, which would be too narrow. Raises ValueError without a picture.
    """
    if np.isin([ours, theirs], (0, 1)).all():
        return paired_interval(ours == 1, theirs == 1)
    same = ours == theirs
    return paired_interval(same, same) if same.all() else mean_interval(ours - theirs)


def share_interval(correct: NDArray[np.bool_]) -> Interval:
    """Return the share of `correct` (repeats, n): n pictures judged under each of the repeats' masks.

    One repeat gives Wilson's interval. With several, the pictures are resampled. If every picture has the same outcome
    in every repeat, Wilson's interval over the pictures replaces a bootstrap interval without a width.
    """
    repeats, count = correct.shape
    if repeats == 1 or correct.all() or not correct.any():
        return wilson(int(correct[0].sum()), count)
    return mean_interval(correct.mean(0, dtype=np.float64))


def sign_test(wins: int, losses: int) -> float:
    """Return the probability of at least `wins` among `wins` + `losses` fair coins: p, one-sided, exact.

    For two attacks on the same pictures, wins are those that only the first breaks, losses those that only the second
    breaks (McNemar 1947). Raises ValueError for negative counts.
    """
    if min(wins, losses) < 0:
        raise ValueError(f"counts: expected at least 0, got {wins} and {losses}")
    count = wins + losses
    return sum(math.comb(count, k) for k in range(wins, count + 1)) / (1 << count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the adjusted p of each of these tests (Holm 1979): below α, its test is significant at α for the family.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none is below the one before it, or above 1.
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def clopper_pearson(successes: int, count: int, alpha: float) -> tuple[float, float]:
    """Return one-sided exact bounds of a share (Clopper and Pearson 1934), each wrong with probability ≤ `alpha`.

    The lower bound is the share under which `successes` or more have probability `alpha`, the upper one that of
    `successes` or fewer. Without an observation they are 0 and 1. Raises ValueError for impossible counts.
    """
    if not 0 <= successes <= count:
        raise ValueError(f"successes: expected 0 to {count}, got {successes}")
    low = 0.0 if not successes else _crossing(lambda p: 1 - _at_most(successes - 1, count, p) >= alpha)
    high = 1.0 if successes == count else _crossing(lambda p: _at_most(successes, count, p) <= alpha)
    return low, high


def _at_most(successes: int, count: int, share: float) -> float:
    """Return the probability of at most `successes` of `count` with probability `share` each, 0 < `share` < 1."""
    whole = math.lgamma(count + 1)
    odds, miss = math.log(share), math.log1p(-share)
    terms = (
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * odds + (count - k) * miss)
        for k in range(successes + 1)
    )
    return min(1.0, math.fsum(terms))


def _crossing(holds: Callable[[float], bool]) -> float:
    """Return the share in (0, 1) from which on `holds` is true, to 1e-9."""
    low, high = 1e-12, 1 - 1e-12
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@cache
def least_wins(discordant: int, alpha: float) -> int:
    """Return the fewest wins of `discordant` pairs for which `sign_test` is below `alpha`; one more than all if none.

    Raises ValueError unless `discordant` is at least 0 and 0 < `alpha` < 1.
    """
    if discordant < 0 or not 0 < alpha < 1:
        raise ValueError(f"sign test: expected at least 0 pairs and a level in (0, 1), got {discordant} and {alpha}")
    tail = 0
    for wins in range(discordant, -1, -1):
        tail += math.comb(discordant, wins)
        if tail / (1 << discordant) >= alpha:
            return wins + 1
    return 0


def paired_power(count: int, more: float, fewer: float, needed: Callable[[int], int]) -> float:
    """Return the probability that a paired test on `count` pictures finds a difference (Connor 1987, exact).

    A picture is a win with probability `more` and a loss with probability `fewer`. The test finds a difference from
    `needed(m)` wins of m discordant pictures on. Their number is binomial, and so are the wins among them. Raises
    ValueError for shares that are no probabilities.
    """
    both = more + fewer
    if min(more, fewer) < 0 or both > 1 or count < 1:
        raise ValueError(f"shares: expected at least 0 with a sum of at most 1, got {more} and {fewer}")
    found = 0.0
    for discordant in range(count + 1):
        chance = _at_exactly(discordant, count, both)
        if chance > _NEGLIGIBLE and (wanted := max(0, needed(discordant))) <= discordant:
            wins = more / both if both else 0.0
            found += chance * math.fsum(_at_exactly(k, discordant, wins) for k in range(wanted, discordant + 1))
    return min(1.0, found)


def paired_detectable(count: int, fewer: float, needed: Callable[[int], int], power: float) -> float:
    """Return the smallest gain, in tenths of a percent, that `paired_power` finds with `power`; 1 if there is none.

    The gain is the share of wins without that of losses, `fewer`. Raises ValueError unless 0 < `power` < 1.
    """
    if not 0 < power < 1:
        raise ValueError(f"power: expected a number in (0, 1), got {power}")
    most = math.floor(1000 * (1 - 2 * fewer) + 1e-9)
    gains = range(1, most + 1)
    place = bisect_left(gains, True, key=lambda gain: paired_power(count, fewer + gain / 1000, fewer, needed) >= power)
    return gains[place] / 1000 if place < len(gains) else 1.0


def _at_exactly(successes: int, count: int, share: float) -> float:
    """Return the probability of exactly `successes` of `count` with probability `share` each, 0 ≤ `share` ≤ 1."""
    if share in (0.0, 1.0):
        return float(successes == count * share)
    ways = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    return math.exp(ways + successes * math.log(share) + (count - successes) * math.log1p(-share))
