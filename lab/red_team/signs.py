"""Signs that attacks fail because gradients are masked, not because the defence is robust.

After Athalye, Carlini and Wagner 2018, section 3.1, and Carlini et al. 2019, section 3. Each sign is a function of the
outcomes that yields a sentence, or nothing. A difference between two attacks counts by the pictures that only one of
them breaks (`outcomes.compare`), so chance alone rarely yields a sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Final

from lab.red_team import plan
from lab.red_team.outcomes import Outcome, compare
from lab.red_team.plan import CLEAN, GRADIENTS, LARGE, MAIN
from lab.statistics import wilson

Outcomes = Mapping[str, Outcome]
"""Outcomes by the name of the job."""

USABLE: Final = 0.95
"""Smallest share of pictures that must have a gradient."""


def short() -> str:
    """Return the name of the run with `SHORT_STEPS` steps."""
    return f"steps/{plan.SHORT_STEPS}"


def masking_signs(outcomes: Outcomes, classes: int) -> list[str]:
    """Return all signs as sentences. An empty list is the good result."""
    return [fault for sign in SIGNS for fault in sign(outcomes, classes)]


def no_gradient(outcomes: Outcomes, classes: int) -> Iterator[str]:
    """Yield a sign if the loss has no finite gradient other than zero for many pictures."""
    found, clean = outcomes.get(GRADIENTS), outcomes.get(CLEAN)
    if found is None or clean is None:
        return
    asked = clean.right[: found.pictures] > 0
    if asked.any() and (share := float(found.right[asked].mean())) < USABLE:
        yield f"the loss has a finite gradient other than zero for {share:.0%} of the pictures only"


def gradient_free_is_stronger(outcomes: Outcomes, classes: int) -> Iterator[str]:
    """Yield a sign for each attack without gradients that breaks more than the gradient attack."""
    titles = {
        "square": "Square, without gradients,",
        "hop-skip-jump": "HopSkipJump, with labels alone,",
        "transfer": "a transfer from another network",
        "verdicts": "an attack on published verdicts",
        "random-search": "a random search",
        "noise": "noise",
    }
    yield from _stronger(outcomes, titles, MAIN, "EOT-PGD")


def stand_in_is_stronger(outcomes: Outcomes, classes: int) -> Iterator[str]:
    """Yield a sign for each approximate gradient that breaks more than the exact one."""
    titles = {name: f"BPDA with {name.partition('/')[2]}" for name in outcomes if name.startswith("bpda/")}
    yield from _stronger(outcomes, titles, short(), "the exact gradient")


def one_step_is_stronger(outcomes: Outcomes, classes: int) -> Iterator[str]:
    """Yield a sign if one or few steps break more than many."""
    yield from _stronger(outcomes, {"one-step": "one step", "steps/5": "five steps"}, MAIN, "many")


def no_growth(outcomes: Outcomes, classes: int) -> Iterator[str]:
    """Yield a sign if a larger bound does not help the attacker."""
    curve = sorted((each for name, each in outcomes.items() if name.startswith("strength/")), key=lambda x: x.job.eps)
    for smaller, larger in pairwise(curve):
        found = compare(smaller, larger)
        if found.first_stronger:
            yield f"ε = {smaller.job.eps:.4g} breaks more than ε = {larger.job.eps:.4g}: {found.described()}"
    if len(curve) > 1 and curve[0].worst.value > 0 and compare(curve[-1], curve[0]).only_first == 0:
        yield f"ε = {curve[-1].job.eps:.4g} breaks no picture that ε = {curve[0].job.eps:.4g} does not"


def not_at_chance(outcomes: Outcomes, classes: int) -> Iterator[str]:
    """Yield a sign if pictures are classified correctly at `LARGE`, where any can become uniform grey."""
    found = outcomes.get(f"strength/{LARGE:.4g}")
    if found is None:
        return
    left = found.right[found.compared]
    interval = wilson(round(float(left.sum())), len(left))
    if interval.low > 1 / classes:
        yield f"at ε = {LARGE:g}, where nothing of a picture need be left, {interval.value:.0%} are still right"


def chance_start_is_stronger(outcomes: Outcomes, classes: int) -> Iterator[str]:
    """Yield a sign if a random start succeeds where gradients from the frame fail: the loss is flat or broken there."""
    yield from _stronger(outcomes, {"one-step": "one step from a random start"}, "start/frame", "many from the frame")


def fixing_does_not_help(outcomes: Outcomes, classes: int) -> Iterator[str]:
    """Yield a sign if an attacker who knows every draw breaks fewer pictures than one who does not."""
    titles = {MAIN: "the attack through unknown draws"}
    yield from _stronger(outcomes, titles, "fixed/all", "that through known ones", often=True)


def _stronger(
    outcomes: Outcomes, titles: Mapping[str, str], against: str, called: str, *, often: bool = False
) -> Iterator[str]:
    second = outcomes.get(against)
    for name, title in titles.items():
        first = outcomes.get(name)
        if first is None or second is None:
            continue
        found = compare(first, second, often=often)
        if found.first_stronger:
            yield f"{title} breaks more than {called}: {found.described()}"


SIGNS: Final[tuple[Callable[[Outcomes, int], Iterator[str]], ...]] = (
    no_gradient,
    gradient_free_is_stronger,
    stand_in_is_stronger,
    one_step_is_stronger,
    no_growth,
    not_at_chance,
    chance_start_is_stronger,
    fixing_does_not_help,
)
