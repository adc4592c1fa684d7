"""Point 5 of the checklist: the main attack has converged, and no other attack is stronger."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from lab.red_team import plan, signs
from lab.red_team.evidence import Evidence, Verdict
from lab.red_team.outcomes import UNLIKELY, Comparison, compare
from lab.red_team.plan import CLEAN, MAIN
from lab.statistics import least_wins, paired_detectable

STRONGER: Final = 0.03
"""Additional success from which an attack is stronger than a converged one."""
SEEN: Final = math.ceil(3 / STRONGER)
"""Fewest pictures for which `STRONGER` counts without a test. Below, one or two pictures reach it."""
POWER: Final = 0.8
"""Probability of the statement about the gain that the pictures would show."""


def convergence(seen: Evidence) -> Verdict:
    """Judge point 5: more steps, other starts and other step sizes change nothing, and no other attack breaks more."""
    steps = [f"steps/{count}" for count in plan.STEP_COUNTS]
    others = ["start/again", "start/frame", *(f"step-size/{size:g}" for size in plan.STEP_SIZES)]
    if lacks := seen.missing([MAIN, *steps, *others]):
        return lacks
    doubled = compare(seen.outcomes[steps[-1]], seen.outcomes[MAIN])
    if stronger := _stronger_than_converged(seen, doubled, others):
        return Verdict("failed", f"{stronger}; {_power(doubled)}")
    if faults := [*signs.chance_start_is_stronger(seen.outcomes, seen.classes)]:
        return Verdict("failed", "; ".join(faults))
    shares = seen.shares([MAIN, *steps, *others])
    return seen.passed(
        list(shares),
        f"accuracy {shares[MAIN]} after {plan.STEPS} steps, {shares[steps[-1]]} after {plan.STEP_COUNTS[-1]}; "
        + _power(doubled),
    )


def _stronger_than_converged(seen: Evidence, doubled: Comparison, others: Iterable[str]) -> str:
    """Return the first attack that breaks more than a converged one would, in words; empty if there is none."""
    if _breaks_more(doubled):
        return f"{plan.STEP_COUNTS[-1]} steps still break more than {plan.STEPS}: {doubled.described()}"
    for name in others:
        if _breaks_more(found := compare(seen.outcomes[name], seen.outcomes[signs.short()])):
            return f"{name} breaks more than the usual start and step: {found.described()}"
    for name, each in seen.outcomes.items():
        if each.job.counts and name not in (CLEAN, MAIN) and _breaks_more(found := compare(each, seen.outcomes[MAIN])):
            return f"{name} breaks more than {MAIN}: {found.described()}"
    return ""


def _power(found: Comparison) -> str:
    """Return the gain that the pictures of a comparison would show with the probability `POWER`, in words.

    As many pictures go the other way as in the comparison.
    """
    count = found.pictures

    def needed(discordant: int) -> int:
        by_test = least_wins(discordant, UNLIKELY)
        by_gain = math.ceil((discordant + math.ceil(STRONGER * count)) / 2)
        return min(by_test, by_gain) if count >= SEEN else by_test

    against = found.only_second / count if count else 0.0
    gain = paired_detectable(count, against, needed, POWER) if count else 1.0
    return (
        f"of {count} pictures, a gain of {gain:.1%} shows with a probability of {POWER:.0%} if {against:.1%} go the "
        "other way"
    )


def _breaks_more(found: Comparison) -> bool:
    """Return whether the first breaks more: significantly, or by `STRONGER` of enough pictures.

    Convergence claims that there is no difference. So a visible difference fails it even if chance may be the reason.
    """
    return found.first_stronger or (found.pictures >= SEEN and found.gain >= STRONGER)
