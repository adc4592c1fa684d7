"""The evaluation checklist (after Carlini et al. 2019), point by point: whether the evaluation supports its claims.

A verdict concerns the evaluation, not the defence: a weak defence can pass every point. A point without measurements is
`not run`, never `passed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from lab.red_team import plan, signs
from lab.red_team.convergence import convergence
from lab.red_team.defences import BROKEN, POOL
from lab.red_team.evidence import Evidence, Verdict
from lab.red_team.outcomes import Outcome, attacked_pictures, compare, worst_case
from lab.red_team.plan import CLEAN, LARGE, MAIN

ENOUGH: Final = 1000
"""Pictures that the checklist requires."""
MARGIN: Final = 0.05
"""Largest apparent gain of a broken defence."""


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
    shares = seen.shares(wanted)
    curve = ", ".join(f"{size}: {shares[f'eot/{size}']}" for size in plan.EOT_SIZES)
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
    shares = seen.shares([*steps, MAIN])
    known = ", ".join(f"{shares[step]} {shown_steps[step]}" for step in steps)
    return seen.passed([*steps, MAIN], f"accuracy {known}, {shares[MAIN]} with nothing known")


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
    strengths = {f"strength/{each.job.eps:.4g}": each.job.eps for each in curve}
    shares = seen.shares(["one-step", MAIN, *strengths])
    points = ", ".join(f"{eps:.3g}: {shares[name]}" for name, eps in strengths.items())
    why = f"accuracy by ε: {points}; one step {shares['one-step']}, many {shares[MAIN]}"
    return seen.passed(list(shares), why)


def other_kinds(seen: Evidence) -> Verdict:
    """Judge point 6: gradient-free, hard-label and transfer attacks are weaker."""
    wanted = ["square", "hop-skip-jump", MAIN]
    if seen.defence.surrogate is not None or not seen.defence.undefended:
        wanted.append("transfer")
    if lacks := seen.missing(wanted):
        return lacks
    if faults := [*signs.gradient_free_is_stronger(seen.outcomes, seen.classes)]:
        return Verdict("failed", "; ".join(faults))
    if idle := [name for name in wanted if not seen.outcomes[name].linf]:
        return Verdict("not run", f"no picture was changed by {', '.join(idle)}")
    shares = ", ".join(f"{name} {share}" for name, share in seen.shares(wanted).items())
    return seen.passed(wanted, f"none beats the gradients; accuracy: {shares}")


def worst_cases(seen: Evidence) -> Verdict:
    """Judge point 7: the worst case over attacks and over submissions, picture by picture."""
    if lacks := seen.missing([CLEAN, MAIN]):
        return lacks
    if seen.defence.random and seen.times < plan.RESUBMISSIONS:
        return Verdict("not run", f"each picture was shown {seen.times} times, not {plan.RESUBMISSIONS}")
    standing = worst_case(seen.outcomes.values(), attacked_pictures(seen.outcomes))
    if standing.any() and (lacks := seen.missing(["auto-attack"])):
        return lacks
    attacks = sum(each.job.counts for each in seen.outcomes.values())
    return Verdict(
        "passed", f"{standing.mean():.1%} withstand all runs that they met of {attacks}, {seen.times} submissions each"
    )


def controls(seen: Evidence) -> Verdict:
    """Judge point 8: targeted and untargeted, clean accuracy, noise as a control."""
    if lacks := seen.missing([CLEAN, MAIN, "targeted", "noise"]):
        return lacks
    if (found := compare(seen.outcomes["noise"], seen.outcomes[MAIN])).first_stronger:
        return Verdict("failed", f"noise breaks more than the attack: {found.described()}")
    targeted = seen.outcomes["targeted"]
    shares = seen.shares([CLEAN, MAIN, "targeted", "noise"])
    return seen.passed(
        list(shares),
        f"accuracy clean {shares[CLEAN]}, noise {shares['noise']}, untargeted {shares[MAIN]}, targeted "
        f"{shares['targeted']} ({targeted.success or 0:.1%} taken for the target)",
    )


def ablations(seen: Evidence) -> Verdict:
    """Judge point 9: each component ablated; the attacks break defences that are known to be broken."""
    wanted = [f"broken/{name}" for name in BROKEN] + ["without/bare"]
    if seen.defence.layered:
        wanted += [f"without/{part}" for part in seen.defence.parts]
    if lacks := seen.missing(wanted):
        return lacks
    bare = seen.outcomes["without/bare"]
    faults = []
    for name in BROKEN:
        broken = seen.outcomes[f"broken/{name}"]
        gain = _left(broken) - _left(bare, broken.pictures)
        if gain > MARGIN:
            faults.append(f"{name}, known to be broken, seems to keep {gain:.1%} from our attacks")
    if faults:
        return Verdict("failed", "; ".join(faults))
    without = [name for name in seen.outcomes if name.startswith("without/") and not name.endswith("clean")]
    parts = ", ".join(f"{name.partition('/')[2]} {share}" for name, share in seen.shares(without).items())
    why = f"accuracy without or alone: {parts} (the first {seen.common(without)} pictures)"
    return seen.passed(wanted, f"{why}; no broken defence keeps more than {MARGIN:.0%} above the bare network")


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
