"""Fixed-effort splitting against random walks whose exact rate of alarms solves a linear system."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from lab.evidence import splitting
from lab.evidence.false_alarms import drawn
from lab.evidence.splitting import LEVELS, TRIALS, Estimate, Repetition, alarm_rate, estimate
from lab.statistics import Interval, log_interval
from schemas.evidence.rule import EvidenceRule, SumRule
from schemas.evidence.track import Probe

WALK = EvidenceRule(sum=SumRule(allowance=1, rise=5, fall=2, limit=6, spreads=0), history_probes=24, unsettled_probes=0)
"""A rule whose sum is a walk on whole numbers. The baseline has no effect while most probes are above the threshold."""
STEPS = {
    "jumps": {5: 6, -2: 994},
    "single steps": {1: 150, -1: 150, -2: 700},
    "all": {5: 3, 2: 20, 1: 40, -1: 137, -2: 800},
}
"""The number of probes out of 1,000 that take each step."""


def exact(steps: Mapping[int, int]) -> float:
    """Return the exact alarms per probe: the inverse of the mean time from 0 to the limit."""
    limit, count = int(WALK.sum.limit), sum(steps.values())
    moves = np.zeros((limit, limit))
    for start in range(limit):
        for step, times in steps.items():
            if start + step < limit:
                moves[start, max(0, start + step)] += times / count
    return float(1 / np.linalg.solve(np.eye(limit) - moves, np.ones(limit))[0])


def walk(steps: Mapping[int, int], seed: int) -> Estimate:
    """Return the estimate for a camera whose probes take these steps."""
    probes = [
        Probe(0, 2.0 ** -(step + WALK.sum.allowance) if step > -2 else 16.0, 1.0, False, 0)
        for step, times in steps.items()
        for _ in range(times)
    ]
    return alarm_rate(lambda generator: drawn(probes, probes[0], 0.0, generator), WALK, seed)


def small(monkeypatch: pytest.MonkeyPatch, path: int, trials: int, repetitions: int = 20) -> None:
    """Make the splittings so small that their estimates vary."""
    monkeypatch.setattr(splitting, "REPETITIONS", repetitions)
    monkeypatch.setattr(splitting, "PATH", path)
    monkeypatch.setattr(splitting, "TRIALS", trials)


@pytest.mark.parametrize("steps", STEPS)
def test_the_interval_contains_the_exact_rate_for_nearly_all_seeds(steps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 400, 60, repetitions=10)
    truth, found = exact(STEPS[steps]), [walk(STEPS[steps], seed).rate for seed in range(20)]
    assert sum(each.low <= truth <= each.high for each in found) >= 17
    assert np.mean([each.value for each in found]) == pytest.approx(truth, rel=0.15)


def test_the_upper_end_is_valid_if_most_splittings_find_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 60, 10)
    truth, found = exact(STEPS["jumps"]), [walk(STEPS["jumps"], seed) for seed in range(50)]
    assert sum(each.rate.value == 0 for each in found) > 5
    assert sum(truth <= each.rate.high for each in found) >= 46
    assert all(each.rests_on_few for each in found)


def test_a_splitting_of_full_size_has_a_narrow_interval_and_enough_passages() -> None:
    found, truth = walk(STEPS["all"], 0), exact(STEPS["all"])
    assert found.rate.low <= truth <= found.rate.high < 1.5 * found.rate.low
    assert not found.rests_on_few


def repetitions(*passages: int) -> list[Repetition]:
    """Return two splittings: one without a passage, and one with these passages."""
    return [Repetition(1000, (0,) * LEVELS), Repetition(1000, passages)]


def test_without_any_passage_the_rule_of_three_bounds_the_rate() -> None:
    nothing = estimate(repetitions(*[0] * LEVELS))
    assert (nothing.rate.value, nothing.rate.low) == (0, 0)
    assert nothing.rate.high == pytest.approx(3 / 2000, rel=0.01)
    entered = estimate(repetitions(40, 50, 0, 0, 0, 0))
    before = log_interval(np.array([0, 40 / 1000 * 50 / TRIALS])).high
    assert (entered.rate.value, entered.rate.low) == (0, 0)
    assert entered.rate.high == pytest.approx(before * 3 / 40, rel=0.01)
    assert entered.passages == (40, 50, 0, 0, 0, 0)


def test_an_estimate_without_a_passage_in_some_repetitions_has_a_wide_interval() -> None:
    some = estimate(repetitions(*[100] * LEVELS)).rate
    assert 0 < some.low < some.value / 10
    assert some.high > 10 * some.value


def test_a_level_with_few_passages_marks_the_estimate() -> None:
    rate = Interval(0.1, 0.1, 0.1)
    assert Estimate(rate, (1000, 199, 1000)).rests_on_few
    assert not Estimate(rate, (1000, 200, 1000)).rests_on_few


def test_the_interval_of_a_logarithm_is_that_of_students_t() -> None:
    found = log_interval(np.array([1.0, 2.0, 3.0]))
    # The half width is Student's quantile for two degrees of freedom, 4.303, times the standard error 1 / √3, divided
    # by the mean 2.
    assert found.value == 2
    assert np.log(found.high / 2) == pytest.approx(4.303 / 3**0.5 / 2, rel=1e-3)
    assert found.high * found.low == pytest.approx(4)
    for invalid in ([1.0], [0.0, 0.0], [2.0, -1.0]):
        with pytest.raises(ValueError, match="expected two or more"):
            log_interval(np.array(invalid))
