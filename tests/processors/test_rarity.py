"""Rarity: the octaves of a statistic among clean frames, and the p-value of several statistics together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, seed
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.stats import chi2

from processors.bundle import CleanTail, CombinedThreshold
from processors.bundle.strip_table import DISAGREEMENT, ENTROPY, LAYER_DISAGREEMENT, SCALED_NORMS, TYPICALITY
from processors.stages.rarity import LEAST_VALUE, MOST_OCTAVES, rarity

CLOSE = 1e-9
"""Maximum difference in octaves between the logarithms of different CPUs."""
FIELDS = {
    ENTROPY: "entropy", DISAGREEMENT: "disagreement", TYPICALITY: "typicality",
    LAYER_DISAGREEMENT: "layer_disagreement", SCALED_NORMS: "scaled_norms",
}  # fmt: skip

octaves = st.floats(-60, 100)
powers = st.floats(0.05, 20)
values = st.one_of(st.just(0.0), st.floats(-80, 120).map(math.exp2))
quantiles = st.lists(st.integers(-480, 800), min_size=1, max_size=24, unique=True).map(
    lambda eighths: [2 ** (each / 8) for each in sorted(eighths, reverse=True)]
)
tails = st.builds(lambda known, power: CleanTail(quantiles=known, power=power), quantiles, powers)


def by_hand(value: float, known: Sequence[float], power: float) -> float:
    """Return the rarity of one value, computed in plain Python."""
    place = math.log2(max(value, LEAST_VALUE))
    logs = list(map(math.log2, known))
    if place >= logs[0]:
        return 0.0
    for number, (above, below) in enumerate(pairwise(logs)):
        if place >= below:
            return min(MOST_OCTAVES, number + (above - place) / (above - below))
    return min(MOST_OCTAVES, len(logs) - 1 + power * (logs[-1] - place))


def rarity_of(value: float, known: Sequence[float], power: float = 1.0) -> float:
    """Return the rarity of one value."""
    return float(rarity(np.array([value]), known, power)[0])


@seed(7)
@given(st.lists(values, min_size=1, max_size=9), quantiles, powers)
def test_the_rarity_follows_its_definition(numbers: list[float], known: list[float], power: float) -> None:
    found = rarity(np.array(numbers), known, power)
    assert found.tolist() == pytest.approx([by_hand(each, known, power) for each in numbers], abs=1e-6)


@seed(7)
@given(values, values, quantiles, powers)
def test_a_lower_value_is_not_less_rare(one: float, other: float, known: list[float], power: float) -> None:
    low, high = sorted((one, other))
    assert rarity_of(low, known, power) >= rarity_of(high, known, power) - CLOSE


@seed(7)
@given(quantiles, powers, st.floats(0, 40))
def test_the_rarity_of_a_quantile_is_its_number(known: list[float], power: float, above: float) -> None:
    assert [rarity_of(each, known, power) for each in known] == pytest.approx(
        [min(number, MOST_OCTAVES) for number in range(len(known))], abs=CLOSE
    )
    assert rarity_of(known[0] * 2**above, known, power) == pytest.approx(0, abs=CLOSE)
    assert rarity_of(math.inf, known, power) == 0


@seed(7)
@given(quantiles, powers, st.floats(0, 60))
def test_below_the_last_quantile_the_share_is_a_power(known: list[float], power: float, below: float) -> None:
    value = max(known[-1] * 2**-below, LEAST_VALUE)
    expected = len(known) - 1 + power * math.log2(known[-1] / value)
    assert rarity_of(value, known, power) == pytest.approx(min(expected, MOST_OCTAVES), abs=1e-6)


@seed(7)
@given(values, quantiles, powers)
def test_a_rarity_is_bounded(value: float, known: list[float], power: float) -> None:
    assert 0 <= rarity_of(value, known, power) <= MOST_OCTAVES
    assert rarity_of(0.0, known, 100.0) == MOST_OCTAVES


def test_zero_is_as_rare_as_the_least_value() -> None:
    assert rarity_of(0.0, [1.0, 2.0**-60]) == pytest.approx(1 + 4)
    assert rarity_of(LEAST_VALUE / 8, [1.0, 2.0**-60]) == pytest.approx(1 + 4)
    # Quantiles may lie below the least value: values below it are as rare as the least value.
    assert rarity_of(0.0, [1.0, 2.0**-128]) == pytest.approx(0.5)


def test_a_single_quantile_leaves_the_power_law() -> None:
    assert rarity(np.array([16.0, 8.0, 4.0, 2.0, 1.0]), [8.0], 0.5).tolist() == pytest.approx([0, 0, 0.5, 1, 1.5])


def test_nan_has_no_rarity() -> None:
    found = rarity(np.array([1.0, np.nan, 0.25]), [1.0, 0.5], 1.0)
    assert np.isnan(found).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantiles": [0.5, 0.5]}, r"quantiles: expected descending numbers, got \[0\.5, 0\.5\]"),
        ({"quantiles": [0.5, 0.1, 0.2]}, "quantiles: expected descending numbers"),
        ({"quantiles": []}, "at least 1 item"),
        ({"quantiles": [2.0**-each for each in range(65)]}, "at most 64 items"),
        ({"quantiles": [0.5, 0.0]}, "greater than 0"),
        ({"quantiles": [math.inf, 0.1]}, "finite number"),
        ({"power": 0.0}, "greater than 0"),
        ({"power": math.nan}, "finite number"),
        ({"share": 0.5}, "Extra inputs"),
    ],
)
def test_an_invalid_tail_is_rejected(changes: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"quantiles": [0.5, 0.1], "power": 1.0}
    CleanTail.model_validate(good)
    with pytest.raises(ValidationError, match=message):
        CleanTail.model_validate(good | changes)


def table(tails: Mapping[str, CleanTail], together: CleanTail) -> CombinedThreshold:
    """Return the table of these statistics."""
    named = {FIELDS[name]: tail for name, tail in tails.items()}
    norms = 1 if SCALED_NORMS in tails else None
    return CombinedThreshold.model_validate(
        {"threshold": 0.01, "frr": 0.01, "together": together, "norms": norms} | named
    )


@st.composite
def judgements(draw: st.DrawFn) -> tuple[CombinedThreshold, dict[str, NDArray[np.float64]]]:
    """Return a table with two to five statistics, and the values of a few frames."""
    names = [ENTROPY, DISAGREEMENT, *draw(st.sets(st.sampled_from([TYPICALITY, LAYER_DISAGREEMENT, SCALED_NORMS])))]
    count = draw(st.integers(1, 5))
    drawn = {name: np.array(draw(st.lists(values, min_size=count, max_size=count))) for name in names}
    return table({name: draw(tails) for name in names}, draw(tails)), drawn


@seed(7)
@given(judgements())
def test_the_p_value_follows_from_the_sum_of_the_rarities(
    judgement: tuple[CombinedThreshold, dict[str, NDArray[np.float64]]],
) -> None:
    combined, statistics = judgement
    assert sorted(combined.tails) == sorted(statistics)
    found = combined.judge(statistics)
    for frame, (p_value, statistic) in enumerate(zip(found.values, found.statistics, strict=True)):
        rarities = {
            name: by_hand(float(statistics[name][frame]), tail.quantiles, tail.power)
            for name, tail in combined.tails.items()
        }
        rare = by_hand(2 ** -sum(rarities.values()), combined.together.quantiles, combined.together.power)
        assert p_value == pytest.approx(2**-rare, rel=1e-4)
        assert rarities[statistic] >= max(rarities.values()) - 1e-6


@pytest.mark.parametrize("leading", list(FIELDS))
def test_the_rarest_statistic_of_a_frame_is_named(leading: str) -> None:
    tail = CleanTail(quantiles=[1.0], power=1.0)
    combined = table(dict.fromkeys(FIELDS, tail), tail)
    statistics = {name: np.array([2.0**-5 if name == leading else 2.0**-2, 1.0]) for name in FIELDS}
    found = combined.judge(statistics)
    assert found.statistics == [leading, ENTROPY]
    assert found.values.tolist() == pytest.approx([2.0**-13, 1.0])


def test_nan_in_one_statistic_gives_no_p_value() -> None:
    tail = CleanTail(quantiles=[1.0], power=1.0)
    statistics = {ENTROPY: np.array([0.5, 0.5]), DISAGREEMENT: np.array([0.5, np.nan])}
    found = table({ENTROPY: tail, DISAGREEMENT: tail}, tail).judge(statistics)
    assert np.isnan(found.values).tolist() == [False, True]


@pytest.mark.parametrize("names", [(ENTROPY, DISAGREEMENT), tuple(FIELDS)])
def test_the_p_values_of_independent_statistics_are_uniform(names: tuple[str, ...]) -> None:
    """Compare with Fisher's method: 2·ln 2 times the sum of k rarities is chi-square with 2k degrees of freedom."""
    count, degrees, last = 200_000, 2 * len(names), 12
    uniform = CleanTail(quantiles=[2.0**-each for each in range(8)], power=1.0)
    sums = chi2.isf(2.0 ** -np.arange(last + 1), degrees) / (2 * math.log(2))
    slope = 1 / float(sums[-1] - sums[-2])
    combined = table(dict.fromkeys(names, uniform), CleanTail(quantiles=np.exp2(-sums).tolist(), power=slope))
    chance = np.random.default_rng(7)
    statistics = {name: chance.random(count) for name in names}
    found = combined.judge(statistics).values
    bounded = np.maximum(np.stack(list(statistics.values())), 2.0**-MOST_OCTAVES)
    exact = chi2.sf(-2 * np.log(bounded).sum(0), degrees)
    # The logarithm of the share is interpolated between quantiles, which is coarse above the median.
    within = (exact > 2.0**-last) & (exact < 0.5)
    np.testing.assert_allclose(found[within], exact[within], rtol=0.05)
    for octave in range(1, 10):
        share = 2.0**-octave
        spread = math.sqrt(share * (1 - share) / count)
        assert abs(float((found < share).mean()) - share) < 5 * spread


def test_incomplete_tables_of_the_statistics_are_rejected() -> None:
    tail: dict[str, object] = {"quantiles": [1.0], "power": 1.0}
    good: dict[str, object] = {"threshold": 0.01, "frr": 0.01} | dict.fromkeys(
        ("together", "entropy", "disagreement"), tail
    )
    assert list(CombinedThreshold.model_validate(good).tails) == [ENTROPY, DISAGREEMENT]
    both = good | {"norms": 2, "scaled_norms": tail}
    assert list(CombinedThreshold.model_validate(both).tails) == [ENTROPY, DISAGREEMENT, SCALED_NORMS]
    message = "norms: expected a number with the table scaled_norms, and none without"
    for missing in ("norms", "scaled_norms"):
        with pytest.raises(ValidationError, match=message):
            CombinedThreshold.model_validate({name: each for name, each in both.items() if name != missing})
    for name, wrong in (("norms", 0), ("threshold", 0.0), ("threshold", 1.5), ("frr", 0.0)):
        with pytest.raises(ValidationError, match=name):
            CombinedThreshold.model_validate(both | {name: wrong})
