"""Comparisons of attacks, signs of gradient masking, and the points of the checklist."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from lab.red_team import plan
from lab.red_team.checklist import ablations, controls, other_kinds
from lab.red_team.convergence import convergence
from lab.red_team.defences import BROKEN
from lab.red_team.evidence import Evidence
from lab.red_team.jobs import Effort, Job
from lab.red_team.outcomes import Outcome, compare, worst_case
from lab.red_team.plan import CLEAN, MAIN, Speeds
from lab.red_team.result import Result
from lab.red_team.signs import masking_signs
from lab.statistics import sign_test
from tests.lab.colour_classifier import coloured_pictures
from tests.lab.masked_networks import colour_defence


@settings(max_examples=30)
@given(wins=st.integers(0, 40), losses=st.integers(0, 40))
def test_the_sign_test_is_the_binomial_one(wins: int, losses: int) -> None:
    expected = 1.0 if wins + losses == 0 else binomtest(wins, wins + losses, alternative="greater").pvalue
    assert sign_test(wins, losses) == pytest.approx(expected)


def outcome(survived: list[bool], met: list[bool] | None = None, **changes: Any) -> Outcome:
    job = Job("a", Effort("noise"), 0.1, len(survived), **changes)
    left = np.array(survived)
    return Outcome(job, left.astype(float), left, np.array(met or [True] * len(left)), np.zeros(len(left)), 0.0, 0.0)


def test_the_worst_case_is_per_picture_over_attacks_on_the_defence_alone() -> None:
    one, other = outcome([True, False, True, True]), outcome([True, True, False])
    ablated = outcome([False] * 4, counts=False)
    assert worst_case([one, other, ablated], 4).tolist() == [True, False, False, True]
    skipped = outcome([True, False], met=[True, False])
    assert worst_case([skipped], 2).tolist() == [True, True]


def test_attacks_are_compared_on_the_pictures_that_both_were_run_on() -> None:
    first = outcome([False, False, False, True, False], compared=4)
    second = outcome([True, True, False, False], met=[True, True, True, False])
    found = compare(first, second)
    assert found[:3] == (3, 2, 0)
    assert not found.first_stronger
    assert compare(outcome([False] * 8), outcome([True] * 8)).first_stronger


def broken(name: str, count: int, of: int = 20, eps: float = 0.1, **changes: Any) -> Outcome:
    """Return the outcome of an attack that breaks the first `count` pictures."""
    left = outcome([number >= count for number in range(of)])
    return replace(left, job=replace(left.job, name=name, eps=eps, **changes))


@pytest.mark.parametrize(
    ("stronger", "weaker", "text"),
    [
        ("square", "eot-pgd", "Square, without gradients, breaks more than EOT-PGD: 8 of 20 pictures against 0"),
        ("hop-skip-jump", "eot-pgd", "HopSkipJump, with labels alone, breaks more"),
        ("transfer", "eot-pgd", "a transfer from another network breaks more"),
        ("verdicts", "eot-pgd", "an attack on published verdicts breaks more"),
        ("random-search", "eot-pgd", "a random search breaks more"),
        ("noise", "eot-pgd", "noise breaks more"),
        ("one-step", "eot-pgd", "one step breaks more than many"),
        ("bpda/identity", "steps/25", "BPDA with identity breaks more than the exact gradient"),
        ("one-step", "start/frame", "one step from a random start breaks more than many from the frame"),
        ("eot-pgd", "fixed/all", "the attack through unknown draws breaks more than that through known ones"),
    ],
)
def test_each_sign_of_masking_is_reported_only_if_it_is_significant(stronger: str, weaker: str, text: str) -> None:
    clear = {stronger: broken(stronger, 12), weaker: broken(weaker, 4)}
    assert [sign for sign in masking_signs(clear, 3) if sign.startswith(text)]
    by_chance = {stronger: broken(stronger, 8), weaker: broken(weaker, 4)}
    assert masking_signs(by_chance, 3) == []
    as_expected = {stronger: broken(stronger, 4), weaker: broken(weaker, 12)}
    assert masking_signs(as_expected, 3) == []


def test_a_larger_bound_that_breaks_fewer_pictures_is_a_sign_of_masking() -> None:
    falling = {f"strength/{eps:g}": broken("", count, eps=eps) for eps, count in ((0.1, 15), (0.2, 3), (0.5, 20))}
    assert [sign.partition(":")[0] for sign in masking_signs(falling, 3)] == ["ε = 0.1 breaks more than ε = 0.2"]
    rising = {f"strength/{eps:g}": broken("", count, eps=eps) for eps, count in ((0.1, 3), (0.2, 15), (0.5, 20))}
    assert masking_signs(rising, 3) == []


def test_a_broken_defence_that_withstands_our_attacks_fails_the_point_of_the_checklist(tmp_path: Path) -> None:
    defence = colour_defence(tmp_path, coloured_pictures(2), "bare")
    outcomes = {f"broken/{name}": broken("", 19, counts=False) for name in BROKEN}
    outcomes["without/bare"] = broken("", 38, of=40, counts=False)
    assert ablations(Evidence(defence, outcomes, 1)) == (
        "passed",
        "accuracy without or alone: bare 5.0% (the first 40 pictures); no broken defence keeps more than 5% above the "
        "bare network (the first 20 pictures)",
    )
    outcomes["without/bare"] = broken("", 20, counts=False)
    outcomes["broken/shield"] = broken("", 10, counts=False)
    failed = ablations(Evidence(defence, outcomes, 1))
    assert failed == ("failed", "shield, known to be broken, seems to keep 50.0% from our attacks")
    outcomes["broken/rand"] = broken("", 8, counts=False)
    failed = ablations(Evidence(defence, outcomes, 1))
    assert failed.why.endswith("; rand, known to be broken, seems to keep 60.0% from our attacks")
    outcomes["broken/rand"] = broken("", 19, counts=False)
    outcomes["broken/shield"] = broken("", 6, of=6, counts=False)
    assert ablations(Evidence(defence, outcomes, 1)).status == "not run"
    del outcomes["broken/shield"]
    assert ablations(Evidence(defence, outcomes, 1)) == ("not run", "lacks broken/shield")


def test_a_point_has_accuracies_on_the_pictures_that_all_its_attacks_were_run_on(tmp_path: Path) -> None:
    defence = colour_defence(tmp_path, coloured_pictures(2), "bare")
    # 90 % of all 1,000 pictures are right when clean, and all of the first 100.
    clean = outcome([number < 900 for number in range(1000)])
    outcomes = {CLEAN: clean, MAIN: clean, "targeted": broken("targeted", 50, 100), "noise": broken("noise", 0, 100)}
    assert controls(Evidence(defence, outcomes, 1)) == (
        "passed",
        "accuracy clean 100.0%, noise 100.0%, untargeted 100.0%, targeted 50.0% (0.0% taken for the target) "
        "(the first 100 pictures)",
    )


def test_an_attack_that_changes_no_picture_counts_as_not_run(tmp_path: Path) -> None:
    defence = colour_defence(tmp_path, coloured_pictures(2), "bare")
    outcomes = {name: replace(broken(name, 10), linf=0.1) for name in ("square", "hop-skip-jump", MAIN)}
    assert other_kinds(Evidence(defence, outcomes, 1)).status == "passed"
    outcomes["hop-skip-jump"] = broken("hop-skip-jump", 0)
    assert other_kinds(Evidence(defence, outcomes, 1)) == ("not run", "no picture was changed by hop-skip-jump")


def converged(main: int, of: int = 100, **stronger: int) -> dict[str, Outcome]:
    """Return the outcomes of a run. Gradient attacks break the first `main` pictures, those in `stronger` more."""
    names = [f"steps/{count}" for count in plan.STEP_COUNTS] + ["start/again", "start/frame"]
    names += [f"step-size/{size:g}" for size in plan.STEP_SIZES]
    found = {name: broken(name, main, of) for name in (MAIN, *names)}
    return found | {name: broken(name, count, of) for name, count in stronger.items()}


@pytest.mark.parametrize("stronger", ["auto-attack", "targeted", "step-size/1", "steps/100"])
def test_an_attack_that_is_three_points_stronger_fails_convergence(tmp_path: Path, stronger: str) -> None:
    defence = colour_defence(tmp_path, coloured_pictures(2), "bare")
    passed = convergence(Evidence(defence, converged(68, **{stronger: 70}), 1))
    assert passed.status == "passed"
    assert passed.why.endswith(
        "of 100 pictures, a gain of 4.3% shows with a probability of 80% if 0.0% go the other way "
        "(the first 100 pictures)"
    )
    failed = convergence(Evidence(defence, converged(68, **{stronger: 71}), 1))
    assert failed.status == "failed"
    assert "3 of 100 pictures against 0" in failed.why
    assert "a gain of 4.3% shows with a probability of 80%" in failed.why
    # Two more pictures out of 20 are not significant.
    assert convergence(Evidence(defence, converged(10, of=20, **{stronger: 12}), 1)).status == "passed"


def test_pictures_broken_only_by_the_weaker_attack_reduce_the_power(tmp_path: Path) -> None:
    defence = colour_defence(tmp_path, coloured_pictures(2), "bare")
    outcomes = converged(60)
    # 100 steps break the last 62 pictures, and the usual steps the first 60.
    outcomes["steps/100"] = outcome([number < 38 for number in range(100)])
    why = convergence(Evidence(defence, outcomes, 1)).why
    shown = 1e-2 * float(re.findall(r"a gain of ([0-9.]+)% shows .* if 38.0% go the other way", why)[0])
    chances = [0.38 + shown, 0.38, 0.24 - shown]
    drawn = np.random.default_rng(0).multinomial(100, chances, 4000)
    found = [won - lost >= 3 or sign_test(int(won), int(lost)) < 0.01 for won, lost, _ in drawn]
    assert 0.77 < np.mean(found) < 0.84


@pytest.mark.parametrize("pictures", [100, 200, 300, 1000])
def test_the_strongest_attack_is_named_whatever_number_of_pictures_the_others_ran_on(
    tmp_path: Path, pictures: int
) -> None:
    defence = colour_defence(tmp_path, coloured_pictures(2), "bare")
    outcomes = {
        CLEAN: broken(CLEAN, 0, pictures),
        # The main attack breaks half of all pictures, and 60 of the first 100.
        MAIN: outcome([not (number % 2 and number >= 100) and number >= 60 for number in range(pictures)]),
        "auto-attack": broken("auto-attack", 66, pictures, compared=100),
        "hop-skip-jump": broken("hop-skip-jump", 25, 25),
    }
    result = Result(
        defence, 0.1, "pictures", pictures, 1, 0, "command", outcomes, [], {}, (), Speeds(1.0, 1.0, 1.0, 1.0)
    )  # fmt: skip
    assert result.strongest == "auto-attack"
