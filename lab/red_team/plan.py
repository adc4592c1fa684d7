"""The jobs with their order and numbers of pictures, and the jobs that a budget of minutes omits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from lab.red_team.defences import BROKEN, LEARNING_STEPS, RANDOM_BASELINES, Defence
from lab.red_team.jobs import Effort, Job

MAIN: Final = "eot-pgd"
CLEAN: Final = "clean"
GRADIENTS: Final = "gradients"
FIRST: Final = (CLEAN, GRADIENTS, MAIN)
RESUBMISSIONS: Final = 10
STEPS: Final = 50
SAMPLES: Final = 10
"""Draws per gradient if the defence is random."""
COMPARED: Final = 100
"""Number of first pictures that every affordable attack gets, so that attacks compare.

Beyond them, attacks other than the main one run only on pictures that are still unbroken.
"""
HARD_LABEL: Final = 25
"""The same number for HopSkipJump, and for the attack on published verdicts."""
CURVE_STEPS: Final = 20
CURVE_SAMPLES: Final = 5
EOT_SIZES: Final = (1, 10, 30, 100)
EOT_STEPS: Final = 10
STEP_COUNTS: Final = (5, 10, 25, 100)
"""Step counts besides `STEPS`."""
STRENGTHS: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Points of the curve over ε, as multiples of the bound."""
LARGE: Final = 0.5
"""An L∞ bound within which any picture can become uniform grey, so that no network can classify it."""
SHORT_STEPS: Final = 25
"""Steps of the attacks that are compared with `steps/25`: step sizes, starts, BPDA, ablations, broken defences."""
STEP_SIZES: Final = (0.04, 0.25, 1.0)
"""Step sizes as shares of ε, besides 2.5 ÷ `SHORT_STEPS` = .1."""
QUERIES: Final = 5000
"""Queries of Square, the package's own number."""
RANDOM_QUERIES: Final = 2000
"""Queries of Square if the defence draws: two for each candidate, on common draws."""
VERDICTS: Final = 1000
"""Verdicts for an attacker who has only the fleet's published output: class and confidence, of 8-bit frames."""
WALK_STEPS: Final = 20
WALK_QUERIES: Final = 20
"""Queries of HopSkipJump for its first direction. The n-th takes √n times as many."""
VOTES: Final = 3
"""Draws of the defence per query of HopSkipJump; the majority of their classes is the answer."""
LEARNING_PASSES: Final = LEARNING_STEPS * 64 * 4
"""Cost of an imitation of the chain, in forward passes: each step defends 64 pictures and trains on them."""
RANDOM_TRIES: Final = 100
FEWEST: Final = 10
"""Fewest pictures to which a budget may cut a job. Below, the job is left out."""
_SHARES: Final = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.0)


def wanted_jobs(defence: Defence, eps: float, images: int) -> list[Job]:
    """Return all jobs that the checklist needs for this defence, the most important first."""
    samples = SAMPLES if defence.uncertain else 1
    some = min(images, COMPARED)
    short = Effort("eot-pgd", SHORT_STEPS, samples)
    jobs = [
        Job(CLEAN, Effort("clean"), eps, images),
        Job(GRADIENTS, Effort("gradients", 1), eps, some, counts=False),
        Job(MAIN, Effort("eot-pgd", STEPS, samples), eps, images),
        Job("one-step", Effort("eot-pgd", 1, samples, step=1.0), eps, some),
        Job("noise", Effort("noise"), eps, some),
        Job("random-search", Effort("random-search", queries=RANDOM_TRIES), eps, some),
        *_strengths(eps, min(samples, CURVE_SAMPLES), some),
        *_judges(defence, eps, some, samples),
    ]
    if defence.uncertain:
        jobs.append(Job("fixed/all", Effort("eot-pgd", STEPS), eps, some, "fixed", counts=False))
    if defence.uncertain and defence.layered:
        jobs.append(Job("fixed/few", short, eps, some, "pool", counts=False))
        if defence.bundle.random:
            jobs.append(Job("fixed/masks", short, eps, some, "known-masks", counts=False))
    if defence.layered:
        jobs += [
            Job(f"bpda/{name}", short, eps, some, f"bpda-{name}") for name in ("identity", "stand-in", "surrogate")
        ]
    jobs += [Job(f"steps/{steps}", Effort("eot-pgd", steps, samples), eps, some) for steps in STEP_COUNTS]
    jobs += _without(defence, eps, short, some)
    jobs += [Job(f"start/{name}", effort, eps, some) for name, effort in _starts(short)]
    jobs += [Job(f"step-size/{size:g}", replace(short, step=size), eps, some) for size in STEP_SIZES]
    if defence.uncertain:
        jobs += [Job(f"eot/{size}", Effort("eot-pgd", EOT_STEPS, size), eps, some) for size in EOT_SIZES]
    # The ensemble costs as much as all others together, so a small budget leaves it out first.
    jobs.append(Job("auto-attack", Effort("auto-attack", random=defence.uncertain), eps, some))
    return [_on_unbroken(job, images) for job in jobs]


def _on_unbroken(job: Job, images: int) -> Job:
    """Return an attack that counts with all `images`: beyond its own pictures, those that are still unbroken."""
    if job.name in FIRST or not job.counts:
        return job
    return replace(job, pictures=images, compared=job.pictures)


def _strengths(eps: float, samples: int, pictures: int) -> list[Job]:
    """Return the jobs, largest strength first. If that breaks nothing, the attack is broken, which should show
    early."""
    effort = Effort("eot-pgd", CURVE_STEPS, samples)
    strengths = sorted({LARGE, *(eps * factor for factor in STRENGTHS if eps * factor < LARGE), eps}, reverse=True)
    return [Job(f"strength/{each:.4g}", effort, each, pictures, counts=each <= eps) for each in strengths]


def _judges(defence: Defence, eps: float, pictures: int, samples: int) -> list[Job]:
    random = defence.uncertain
    square = Effort("square", queries=RANDOM_QUERIES if random else QUERIES, random=random)
    walk = Effort("hop-skip-jump", WALK_STEPS, VOTES if random else 1, queries=WALK_QUERIES)
    jobs = [
        Job("square", square, eps, pictures),
        Job("targeted", Effort("eot-pgd", STEPS, samples, targeted=True), eps, pictures),
        Job("hop-skip-jump", walk, eps, min(pictures, HARD_LABEL)),
        Job("verdicts", Effort("verdicts", queries=VERDICTS), eps, min(pictures, HARD_LABEL)),
    ]
    # A transfer from the very network that is attacked would be the same attack again.
    if defence.surrogate is not None or not defence.undefended:
        jobs.insert(1, Job("transfer", Effort("transfer", STEPS), eps, pictures, "from-bare"))
    return jobs


def _starts(short: Effort) -> list[tuple[str, Effort]]:
    return [("again", short), ("frame", replace(short, random_start=False))]


def _without(defence: Defence, eps: float, short: Effort, pictures: int) -> list[Job]:
    jobs = []
    alone = replace(short, samples=1)
    parts = [("bare", "bare", alone)] if not defence.undefended else []
    if defence.layered:
        parts = [(part, f"without-{part}", short) for part in defence.parts] + parts
    for name, variant, effort in parts:
        jobs += [
            Job(f"without/{name}", effort, eps, pictures, variant, counts=False),
            Job(f"without/{name}, clean", Effort("clean"), eps, pictures, variant, counts=False),
        ]
    for name in BROKEN:
        effort = replace(short, samples=SAMPLES if name in RANDOM_BASELINES else 1)
        jobs.append(Job(f"broken/{name}", effort, eps, min(pictures, COMPARED // 2), f"broken-{name}", counts=False))
    if defence.undefended:
        jobs.append(Job("without/bare", alone, eps, pictures, "bare", counts=False))
    return jobs


class Speeds(NamedTuple):
    """Seconds per picture, forward and backward or forward alone, with the defence and without it."""

    gradient_s: float
    forward_s: float
    bare_gradient_s: float
    bare_forward_s: float

    def seconds(self, job: Job, times: int, standing: float = 1.0) -> float:
        """Return the highest cost in seconds of the whole job, with `times` submissions of each picture at the end.

        `standing` is the share of pictures that no attack has broken yet. Broken ones cost little if an attack stops at
        success, and nothing beyond the pictures that every attack gets.
        """
        backward, forward = job.cost
        # A stand-in needs two forward passes, and random baselines cost a multiple of the bare network.
        cheap = job.variant in ("bare", "from-bare")
        gradient_s = self.bare_gradient_s if cheap else self.gradient_s
        forward_s = self.bare_forward_s if job.variant == "bare" else self.forward_s
        attacked = job.pictures if job.compared is None else job.compared + (job.pictures - job.compared) * standing
        stops = standing if job.stops else 1.0
        learning = LEARNING_PASSES * self.forward_s if job.variant == "bpda-surrogate" else 0.0
        return learning + attacked * (stops * (backward * gradient_s + forward * forward_s) + times * forward_s)


@dataclass(frozen=True)
class Plan:
    """The jobs in their order, with as many pictures as the budget allows, and the omissions in words."""

    jobs: tuple[Job, ...]
    left_out: tuple[str, ...]
    costs: dict[str, float]
    """Upper bound of each job's seconds, from the measured speeds."""

    @property
    def seconds(self) -> float:
        """Upper bound of the seconds of all jobs."""
        return sum(self.costs.values())


def first_jobs(jobs: Sequence[Job], seconds: Callable[[Job], float], budget_s: float | None) -> Plan:
    """Return the clean pictures and the main attack, from which the other costs follow.

    They get as many pictures as half a budget allows.
    """
    wanted = [job for job in jobs if job.name in FIRST]
    chosen = wanted
    for share in _SHARES if budget_s is not None else ():
        chosen = [_cut(job, share) if job.name == MAIN else job for job in wanted]
        if budget_s is not None and sum(map(seconds, chosen)) <= budget_s / 2:
            break
    return _plan(chosen, wanted, seconds)


def further_jobs(jobs: Sequence[Job], seconds: Callable[[Job], float], left_s: float | None) -> Plan:
    """Return the other jobs within `left_s`: with fewer pictures, down to `FEWEST`, then without the last ones."""
    wanted = [job for job in jobs if job.name not in FIRST]
    chosen = wanted
    if left_s is not None:
        for share in _SHARES:
            chosen = [_cut(job, share) for job in wanted]
            if sum(map(seconds, chosen)) <= left_s:
                break
        while chosen and sum(map(seconds, chosen)) > left_s:
            chosen = chosen[:-1]
    return _plan(chosen, wanted, seconds)


def _plan(chosen: Sequence[Job], wanted: Sequence[Job], seconds: Callable[[Job], float]) -> Plan:
    kept = {job.name: job.pictures for job in chosen}
    left_out = [
        f"{job.name}: {kept[job.name]} of {job.pictures} pictures" if job.name in kept else f"{job.name}: all of it"
        for job in wanted
        if kept.get(job.name, 0) < job.pictures
    ]
    return Plan(tuple(chosen), tuple(left_out), {job.name: seconds(job) for job in chosen})


def _cut(job: Job, share: float) -> Job:
    def less(count: int) -> int:
        return max(min(count, FEWEST), round(share * count))

    if job.compared is None:
        return replace(job, pictures=less(job.pictures))
    # Further pictures are attacked only if unbroken: few if the defence is weak, more if it is strong.
    return replace(job, compared=less(job.compared), pictures=max(less(job.pictures), min(job.pictures, COMPARED)))
