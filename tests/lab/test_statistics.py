"""The lab's statistics against published examples, scipy and brute force."""

from __future__ import annotations

import math
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, multinomial

from lab.statistics import (
    difference_interval,
    holm,
    least_wins,
    mean_interval,
    paired_detectable,
    paired_interval,
    paired_power,
    share_interval,
    sign_test,
    wilson,
)


def test_wilsons_interval_agrees_with_a_published_example() -> None:
    # Newcombe 1998, table I: 81 of 263.
    found = wilson(81, 263)
    assert found.low == pytest.approx(0.2553, abs=5e-5)
    assert found.high == pytest.approx(0.3662, abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_contains_the_share_and_is_symmetric(pair: tuple[int, int]) -> None:
    successes, count = pair
    found, mirrored = wilson(successes, count), wilson(count - successes, count)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-12)


@pytest.mark.parametrize(("successes", "count"), [(-1, 5), (6, 5), (0, 0)])
def test_wilsons_interval_rejects_invalid_counts(successes: int, count: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        wilson(successes, count)


@pytest.mark.parametrize("count", [900, 3000])
def test_the_interval_of_a_mean_has_the_width_of_the_normal_interval(count: int) -> None:
    values = np.random.default_rng(1).normal(2.0, 0.5, count)
    found = mean_interval(values)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(count), rel=0.06)


def test_a_paired_interval_is_narrower_for_correlated_answers() -> None:
    rng = np.random.default_rng(2)
    difficulty = rng.integers(0, 2, 500).astype(float)
    better = np.where(rng.random(500) < 0.06, 1.0, difficulty)
    paired = mean_interval(better - difficulty)
    assert paired.low > 0
    assert paired.high - paired.low < 0.5 * (mean_interval(better).high - mean_interval(better).low)


def test_repeats_of_the_same_pictures_do_not_narrow_the_interval() -> None:
    once = np.random.default_rng(3).random((1, 400)) < 0.7
    single, repeated = share_interval(once), share_interval(np.repeat(once, 10, axis=0))
    assert repeated.value == single.value
    assert repeated.high - repeated.low == pytest.approx(single.high - single.low, rel=0.08)


def test_the_interval_has_a_width_if_every_picture_is_right() -> None:
    found = share_interval(np.ones((10, 100), np.bool_))
    assert found.value == 1
    assert found.low == wilson(100, 100).low < 1


def test_the_interval_of_a_difference_has_a_width_if_two_defences_never_differ() -> None:
    shares = np.array([0.2, 1.0, 0.6])
    same = np.ones(3, np.bool_)
    assert difference_interval(shares, shares) == paired_interval(same, same)
    assert difference_interval(shares, shares[::-1]) == mean_interval(shares - shares[::-1])


def test_the_interval_of_one_differing_picture_includes_zero() -> None:
    theirs = np.ones(20)
    theirs[3] = 0.0
    found = difference_interval(np.ones(20), theirs)
    assert found == paired_interval(np.ones(20, np.bool_), theirs == 1)
    assert found.low < 0 < found.value


def test_a_mean_of_no_values_is_rejected() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_interval(np.zeros(0))


def test_a_paired_interval_has_a_width_without_discordant_pairs_and_covers_a_difference() -> None:
    same = np.ones(200, np.bool_)
    equal = paired_interval(same, same)
    assert equal.value == 0
    assert equal.low == -equal.high < 0
    ours, theirs = same.copy(), same.copy()
    ours[:30] = False
    theirs[:2] = False
    found = paired_interval(ours, theirs)
    assert found.value == pytest.approx(-0.14)
    assert found.low < -0.14 < found.high < 0
    # Bonett and Price (2012), with one added to each count of discordant pairs.
    assert found.low == pytest.approx(
        -28 / 202 - 1.96 * np.sqrt((29 + 1) / 202 - (28 / 202) ** 2) / np.sqrt(202), abs=1e-4
    )
    assert paired_interval(theirs, ours).value == -found.value
    with pytest.raises(ValueError, match="at least one"):
        paired_interval(same[:0], same[:0])


@pytest.mark.parametrize("alpha", [0.01, 0.025, 0.05])
def test_the_least_wins_are_those_of_the_binomial_test(alpha: float) -> None:
    for discordant in range(40):
        by_scipy = [
            wins for wins in range(discordant + 1)
            if discordant and binomtest(wins, discordant, alternative="greater").pvalue < alpha
        ]  # fmt: skip
        assert least_wins(discordant, alpha) == min(by_scipy, default=discordant + 1)
    assert least_wins(3000, 0.05) == binom.isf(0.05, 3000, 0.5) + 1
    with pytest.raises(ValueError, match="sign test"):
        least_wins(-1, alpha)


@pytest.mark.parametrize(("more", "fewer"), [(0.2, 0.05), (0.3, 0.0), (0.0, 0.2), (0.5, 0.5), (0.0, 0.0)])
def test_the_power_is_the_sum_over_all_outcomes(more: float, fewer: float) -> None:
    def needed(discordant: int) -> int:
        return min(least_wins(discordant, 0.05), math.ceil((discordant + 4) / 2))

    count = 24
    outcomes = [
        (wins, losses) for wins in range(count + 1) for losses in range(count + 1 - wins)
        if sign_test(wins, losses) < 0.05 or wins - losses >= 4
    ]  # fmt: skip
    brute = sum(
        multinomial.pmf([wins, losses, count - wins - losses], count, [more, fewer, 1 - more - fewer])
        for wins, losses in outcomes
    )
    assert paired_power(count, more, fewer, needed) == pytest.approx(brute, abs=1e-9)


def test_a_detectable_gain_is_detected_as_often_as_its_power() -> None:
    needed = partial(least_wins, alpha=0.025)
    gain = paired_detectable(200, 0.04, needed, 0.8)
    assert paired_power(200, 0.04 + gain, 0.04, needed) >= 0.8 > paired_power(200, 0.039 + gain, 0.04, needed)
    wins, losses, _ = np.random.default_rng(0).multinomial(200, [0.04 + gain, 0.04, 0.92 - gain], 4000).T
    found = [sign_test(int(won), int(lost)) < 0.025 for won, lost in zip(wins, losses, strict=True)]
    assert 0.77 < np.mean(found) < 0.84
    gains = [paired_detectable(count, 0.04, needed, 0.8) for count in (50, 100, 1000)]
    assert gains == sorted(gains, reverse=True)
    assert paired_detectable(5, 0.0, needed, 0.8) == 1
    with pytest.raises(ValueError, match="power"):
        paired_detectable(5, 0.0, needed, 1.0)
    with pytest.raises(ValueError, match="shares"):
        paired_power(5, 0.6, 0.6, needed)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holms_p_value_is_the_largest_bonferroni_p_value_of_all_sets_with_the_test(p_values: list[float]) -> None:
    # The oracle: the closed test of Marcus, Peritz and Gabriel (1976), whose sets are tested by Bonferroni's method.
    places = range(len(p_values))
    sets = [some for size in range(1, len(p_values) + 1) for some in combinations(places, size)]
    bonferroni = {some: min(1.0, len(some) * min(p_values[place] for place in some)) for some in sets}
    expected = [max(p for some, p in bonferroni.items() if place in some) for place in places]
    assert holm(p_values) == pytest.approx(expected)
