"""The evaluation checklist (after Carlini et al. 2019), point by point: whether the evaluation supports its claims.

A verdict concerns the evaluation, not the defence: a weak defence can pass every point. A point without measurements is
`not run`, never `passed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from lab.red_team import plan, signs
from lab.red_team.defences import BROKEN, POOL, Defence
from lab.red_team.outcomes import UNLIKELY, Comparison, Outcome, compare, worst_case
from lab.red_team.plan import CLEAN, LARGE, MAIN
from lab.statistics import detectable, sign_test

Status = Literal["passed", "failed", "not run"]
ENOUGH: Final = 1000
"""Pictures that the checklist requires."""
FEW: Final = next(count for count in range(1, 100) if sign_test(count, 0) < UNLIKELY)
"""Fewest pictures on which one attack can be significantly stronger than another."""
MARGIN: Final = 0.05
"""Largest apparent gain of a broken defence."""
STRONGER: Final = 0.03
"""Additional success from which an attack is stronger than a converged one."""
SEEN: Final = math.ceil(3 / STRONGER)
"""Fewest pictures for which `STRONGER` counts without a test. Below, one or two pictures reach it."""


POWER: Final = 0.8
"""Probability of the statement about the gain that the pictures would show."""


class Verdict(NamedTuple):
    """The verdict on a point, and its reason."""

    status: Status
    why: str


@dataclass(frozen=True)
class Evidence:
    """The input of the checklist's points."""

    defence: Defence
    outcomes: signs.Outcomes
    times: int

    @property
    def classes(self) -> int:
        """The number of classes of the network."""
        return len(self.defence.bundle.settings.classes)

    def missing(self, names: Iterable[str]) -> Verdict | None:
        """Return `not run` if one of these jobs has no outcome."""
        lacking = [name for name in names if name not in self.outcomes]
        return Verdict("not run", f"lacks {', '.join(lacking)}") if lacking else None

    def passed(self, names: Iterable[str], why: str) -> Verdict:
        """Return `passed` by these jobs, with the number of pictures, or `not run` if they are too few for it."""
        count = min((int(self.outcomes[name].compared.sum()) for name in names), default=0)
        if count < FEW:
            return Verdict("not run", f"{count} pictures, of at least {FEW} needed: {why}")
        return Verdict("passed", f"{why} (at least {count} pictures each)")

    def share(self, name: str) -> str:
        """Return the accuracy under a job in words."""
        return f"{self.outcomes[name].accuracy.value:.1%}"


def threat_model(seen: Evidence) -> Verdict:
    """Judge point 1: a written threat model, kept by every attack."""
    attacks = [each for each in seen.outcomes.values() if each.job.effort.kind not in ("clean", "gradients")]
    if not attacks:
        return Verdict("not run", "no attack ran")
    for each in attacks:
        if each.linf > each.job.eps + 1e-6:
            return Verdict("failed", f"{each.job.name} went to L∞ {each.linf:.5f}, beyond ε = {each.job.eps:.5f}")
    return Verdict("passed", f"stated on the page; all {len(attacks)} attacks kept within their L∞ bound and [0, 1]")


def adaptive(seen: Evidence) -> Verdict:
    """Judge point 2: the whole defence in the forward pass, BPDA, EOT."""
    wanted = [MAIN]
    if seen.defence.layered:
        wanted += ["bpda/identity", "bpda/stand-in", "bpda/surrogate", signs.short()]
    if seen.defence.uncertain:
        wanted += [f"eot/{size}" for size in plan.EOT_SIZES]
    if lacks := seen.missing(wanted):
        return lacks
    found = (signs.no_gradient, signs.stand_in_is_stronger)
    if faults := [line for sign in found for line in sign(seen.outcomes, seen.classes)]:
        return Verdict("failed", "; ".join(faults))
    if not seen.defence.uncertain:
        return seen.passed(wanted, "attacked whole; it draws nothing that would have to be averaged")
    fewer, most = plan.EOT_SIZES[-2:]
    found_more = compare(seen.outcomes[f"eot/{most}"], seen.outcomes[f"eot/{fewer}"])
    if found_more.first_stronger:
        return Verdict("failed", f"{most} draws a gradient still break more than {fewer}: {found_more.described()}")
    curve = ", ".join(f"{size}: {seen.share(f'eot/{size}')}" for size in plan.EOT_SIZES)
    return seen.passed(
        wanted, f"accuracy by draws a gradient: {curve}; no stand-in is stronger than the exact gradient"
    )


def fixed_randomness(seen: Evidence) -> Verdict:
    """Judge point 3: with the randomness fixed, the attack must do better."""
    if not seen.defence.uncertain:
        return Verdict("passed", "the attacker knows every random draw")
    steps = ["fixed/all"]
    if seen.defence.layered:
        steps += ["fixed/few", *(["fixed/masks"] if seen.defence.bundle.random else [])]
    if lacks := seen.missing([*steps, MAIN]):
        return lacks
    if faults := [*signs.fixing_does_not_help(seen.outcomes, seen.classes)]:
        return Verdict("failed", "; ".join(faults))
    shown_steps = {
        "fixed/all": "with every draw known",
        "fixed/few": f"with one of {POOL} known ones",
        "fixed/masks": "with the masks known",
    }
    known = ", ".join(f"{seen.share(step)} {shown_steps[step]}" for step in steps)
    return seen.passed([*steps, MAIN], f"accuracy {known}, {seen.share(MAIN)} with nothing known")


def growth(seen: Evidence) -> Verdict:
    """Judge point 4: many steps beat one, success rises with ε and reaches 100 %."""
    curve = sorted(
        (each for name, each in seen.outcomes.items() if name.startswith("strength/")), key=lambda each: each.job.eps
    )
    if lacks := seen.missing(["one-step", MAIN]):
        return lacks
    if len(curve) < 3 or curve[-1].job.eps < LARGE:
        return Verdict("not run", "lacks the curve over ε up to where nothing is left of a picture")
    found = (signs.one_step_is_stronger, signs.no_growth, signs.not_at_chance)
    if faults := [line for sign in found for line in sign(seen.outcomes, seen.classes)]:
        return Verdict("failed", "; ".join(faults))
    if curve[-1].accuracy.value > MARGIN:
        left, eps = curve[-1].accuracy.value, curve[-1].job.eps
        return Verdict("failed", f"success does not reach 100 %: at ε = {eps:.3g} {left:.1%} are still right")
    points = ", ".join(f"{each.job.eps:.3g}: {each.accuracy.value:.1%}" for each in curve)
    why = f"accuracy by ε: {points}; one step {seen.share('one-step')}, many {seen.share(MAIN)}"
    return seen.passed(["one-step", MAIN, *(f"strength/{each.job.eps:.4g}" for each in curve)], why)


def convergence(seen: Evidence) -> Verdict:
    """Judge point 5: more steps, other starts and other step sizes change nothing, and no other attack breaks more."""
    steps = [f"steps/{count}" for count in plan.STEP_COUNTS]
    others = ["start/again", "start/frame", *(f"step-size/{size:g}" for size in plan.STEP_SIZES)]
    if lacks := seen.missing([MAIN, *steps, *others]):
        return lacks
    doubled = compare(seen.outcomes[steps[-1]], seen.outcomes[MAIN])
    if _breaks_more(doubled):
        return Verdict(
            "failed", f"{plan.STEP_COUNTS[-1]} steps still break more than {plan.STEPS}: {doubled.described()}"
        )
    for name in others:
        if _breaks_more(found := compare(seen.outcomes[name], seen.outcomes[signs.short()])):
            return Verdict("failed", f"{name} breaks more than the usual start and step: {found.described()}")
    for name, each in seen.outcomes.items():
        if each.job.counts and name not in (CLEAN, MAIN) and _breaks_more(found := compare(each, seen.outcomes[MAIN])):
            return Verdict("failed", f"{name} breaks more than {MAIN}: {found.described()}")
    if faults := [*signs.chance_start_is_stronger(seen.outcomes, seen.classes)]:
        return Verdict("failed", "; ".join(faults))
    count = min(int(seen.outcomes[name].compared.sum()) for name in (MAIN, *steps, *others))
    return seen.passed(
        [MAIN, *steps, *others],
        f"accuracy {seen.share(MAIN)} after {plan.STEPS} steps, {seen.share(steps[-1])} after {plan.STEP_COUNTS[-1]}; "
        f"of {count} pictures, a gain of {_detectable(count):.1%} shows with a probability of {POWER:.0%} if no "
        "picture goes the other way",
    )


def _detectable(count: int) -> float:
    """Return the smallest true gain that this many pictures show with the probability `POWER`."""
    if count < FEW:
        return 1.0
    return detectable(count, math.ceil(STRONGER * count) if count >= SEEN else FEW, POWER)


def _breaks_more(found: Comparison) -> bool:
    """Return whether the first breaks more: significantly, or by `STRONGER` of enough pictures.

    Convergence claims that there is no difference. So a visible difference fails it even if chance may be the reason.
    """
    return found.first_stronger or (found.pictures >= SEEN and found.gain >= STRONGER)


def other_kinds(seen: Evidence) -> Verdict:
    """Judge point 6: gradient-free, hard-label and transfer attacks are weaker."""
    wanted = ["square", "hop-skip-jump", MAIN]
    if seen.defence.surrogate is not None or not seen.defence.undefended:
        wanted.append("transfer")
    if lacks := seen.missing(wanted):
        return lacks
    if faults := [*signs.gradient_free_is_stronger(seen.outcomes, seen.classes)]:
        return Verdict("failed", "; ".join(faults))
    shares = ", ".join(f"{name} {seen.share(name)}" for name in wanted)
    return seen.passed(wanted, f"none beats the gradients; accuracy: {shares}")


def worst_cases(seen: Evidence) -> Verdict:
    """Judge point 7: the worst case over attacks and over submissions, picture by picture."""
    if lacks := seen.missing([CLEAN, MAIN]):
        return lacks
    if seen.defence.random and seen.times < plan.RESUBMISSIONS:
        return Verdict("not run", f"each picture was shown {seen.times} times, not {plan.RESUBMISSIONS}")
    standing = worst_case(seen.outcomes.values(), seen.outcomes[CLEAN].pictures)
    if standing.any() and (lacks := seen.missing(["auto-attack"])):
        return lacks
    attacks = sum(each.job.counts for each in seen.outcomes.values())
    return Verdict("passed", f"{standing.mean():.1%} withstand all of {attacks} runs, {seen.times} submissions each")


def controls(seen: Evidence) -> Verdict:
    """Judge point 8: targeted and untargeted, clean accuracy, noise as a control."""
    if lacks := seen.missing([CLEAN, MAIN, "targeted", "noise"]):
        return lacks
    if (found := compare(seen.outcomes["noise"], seen.outcomes[MAIN])).first_stronger:
        return Verdict("failed", f"noise breaks more than the attack: {found.described()}")
    targeted = seen.outcomes["targeted"]
    return seen.passed(
        [CLEAN, MAIN, "targeted", "noise"],
        f"accuracy clean {seen.share(CLEAN)}, noise {seen.share('noise')}, untargeted {seen.share(MAIN)}, targeted "
        f"{seen.share('targeted')} ({targeted.success or 0:.1%} taken for the target)",
    )


def ablations(seen: Evidence) -> Verdict:
    """Judge point 9: each component ablated; the attacks break defences that are known to be broken."""
    wanted = [f"broken/{name}" for name in BROKEN] + ["without/bare"]
    if seen.defence.layered:
        wanted += [f"without/{part}" for part in seen.defence.parts]
    if lacks := seen.missing(wanted):
        return lacks
    bare = seen.outcomes["without/bare"]
    for name in BROKEN:
        broken = seen.outcomes[f"broken/{name}"]
        gain = _left(broken) - _left(bare, broken.pictures)
        if gain > MARGIN:
            return Verdict("failed", f"{name}, known to be broken, seems to keep {gain:.1%} from our attacks")
    without = [name for name in seen.outcomes if name.startswith("without/") and not name.endswith("clean")]
    parts = ", ".join(f"{name.partition('/')[2]} {seen.share(name)}" for name in without)
    return seen.passed(wanted, f"no broken defence keeps more than {MARGIN:.0%}; accuracy without or alone: {parts}")


def _left(outcome: Outcome, pictures: int | None = None) -> float:
    return float(np.mean(outcome.right[:pictures]))


def size(seen: Evidence) -> Verdict:
    """Judge point 10: at least 1,000 pictures, intervals, settings and command."""
    if lacks := seen.missing([MAIN]):
        return lacks
    count = seen.outcomes[MAIN].pictures
    if count < ENOUGH:
        return Verdict("failed", f"{count} pictures of at least {ENOUGH}; intervals, settings and command are given")
    return Verdict("passed", f"{count} pictures; intervals, settings and command are given")


POINTS: Final[dict[str, Callable[[Evidence], Verdict]]] = {
    "1 threat model": threat_model,
    "2 whole defence, BPDA, EOT": adaptive,
    "3 randomness fixed": fixed_randomness,
    "4 growth with steps and ε": growth,
    "5 convergence": convergence,
    "6 gradient-free, hard-label, transfer": other_kinds,
    "7 worst case, resubmissions": worst_cases,
    "8 targeted, clean, noise": controls,
    "9 ablations, broken defences": ablations,
    "10 size, intervals, command": size,
}


def verdicts(seen: Evidence) -> dict[str, Verdict]:
    """Return the verdict on every point."""
    return {point: judge(seen) for point, judge in POINTS.items()}
