"""A whole run: it reports its cost before the start and returns one document at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, get_args

from lab.cache import Cache
from lab.data import LabelledPictures
from lab.red_team.checklist import verdicts
from lab.red_team.defences import Defence
from lab.red_team.evidence import Evidence
from lab.red_team.jobs import Job
from lab.red_team.measure import Measurement, Progress, has_graph
from lab.red_team.plan import CLEAN, RESUBMISSIONS, Plan, Speeds, first_jobs, further_jobs, wanted_jobs
from lab.red_team.result import Result
from lab.red_team.signs import masking_signs
from processors.device.precision import Precision
from schemas.errors import BundleError, ConfigError

BY_ANSWERS: Final = ("noise", "random-search", "square", "hop-skip-jump", "verdicts")
"""Groups of attacks that need no gradients."""


class CostProgress(Progress, Protocol):
    """A receiver of cost estimates and progress."""

    def expect(self, plan: Plan, speeds: Speeds) -> None:
        """Report a plan and its highest cost by the measured speeds. Called for the first jobs and for the others."""
        ...


@dataclass(frozen=True)
class RedTeam:
    """The target, the strength, and the cache of finished batches.

    `eps` is L∞ on frames in [0, 1]. `attacks` names the groups of jobs; None is all. `budget_s` is None without a
    limit. `gradient_precision` is the arithmetic of the attacker's gradients; answers and verdicts are in float32.
    """

    defence: Defence
    pictures: LabelledPictures
    eps: float
    runs: Path
    attacks: tuple[str, ...] | None = None
    budget_s: float | None = None
    seed: int = 0
    gradient_precision: Precision = "float32"

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise ConfigError(f"--eps: expected above 0 and at most 1 (frames are in [0, 1]), got {self.eps:g}")
        if self.budget_s is not None and not self.budget_s > 0:
            raise ConfigError(f"--budget: expected more than 0 minutes, got {self.budget_s / 60:g}")
        if self.gradient_precision not in get_args(Precision):
            expected = ", ".join(get_args(Precision))
            raise ConfigError(f"--gradient-precision: expected one of {expected}, got {self.gradient_precision!r}")

    def jobs(self) -> list[Job]:
        """Return the requested jobs.

        Raises ConfigError for an unknown group, and BundleError if gradients are needed but not available.
        """
        every = wanted_jobs(self.defence, self.eps, len(self.pictures))
        groups = list(dict.fromkeys(job.group for job in every if job.group != CLEAN))
        if self.attacks == ():
            raise ConfigError(f"--attacks: expected some of {', '.join(groups)}, got none")
        if unknown := [name for name in self.attacks or () if name not in groups]:
            raise ConfigError(f"--attacks: expected some of {', '.join(groups)}, got {unknown[0]!r}")
        wanted = [job for job in every if self.attacks is None or job.group in (CLEAN, *self.attacks)]
        blind = [job.name for job in wanted if job.effort.gradients and not self._differentiable(job)]
        if blind:
            answers = ",".join(BY_ANSWERS + (("transfer",) if self.defence.surrogate is not None else ()))
            raise BundleError(
                f"{self.defence.bundle.model_id}: expected a network that gives gradients with respect to its input "
                f"(safetensors or TorchScript) for {blind[0]}, got {self.defence.bundle.settings.format}; without them "
                f"run --attacks {answers}" + ("" if self.defence.surrogate else " (transfer too with --surrogate)")
            )
        return wanted

    def _differentiable(self, job: Job) -> bool:
        return has_graph(self.defence, "from-bare" if job.variant == "from-bare" else "bare")

    def estimate(self, progress: CostProgress) -> float:
        """Report the highest cost of a run without running it: seconds, if no picture is broken."""
        jobs, times, measurement = self._begin()
        speeds = measurement.speeds()

        def seconds(job: Job) -> float:
            return speeds.seconds(job, times if self.defence.draws(job.variant) else 1)

        first = first_jobs(jobs, seconds, self.budget_s)
        others = further_jobs(jobs, seconds, None if self.budget_s is None else self.budget_s - first.seconds)
        for plan in (first, others):
            progress.expect(plan, speeds)
        return first.seconds + others.seconds

    def _begin(self) -> tuple[list[Job], int, Measurement]:
        times = RESUBMISSIONS if self.defence.random else 1
        measurement = Measurement(
            self.defence, self.pictures, self.seed, times, Cache(self.runs), self.gradient_precision
        )
        return self.jobs(), times, measurement

    def run(self, progress: CostProgress, command: str) -> Result:
        """Attack, compare and judge. `command` is the command that repeats the run."""
        jobs, times, measurement = self._begin()
        speeds = measurement.speeds()
        began = time.monotonic()

        def may_begin(expected: float) -> bool:
            return self.budget_s is None or time.monotonic() - began + expected <= self.budget_s

        def seconds(job: Job, standing: float = 1.0) -> float:
            return speeds.seconds(job, times if self.defence.draws(job.variant) else 1, standing)

        first = first_jobs(jobs, seconds, self.budget_s)
        progress.expect(first, speeds)
        cut = _run(first.jobs, measurement, progress, seconds, may_begin)
        standing = measurement.standing()
        # The kept batches' times count, not this run's clock, so that a resumed run makes the same plan.
        taken = sum(each.seconds for each in measurement.outcomes.values())
        expected = sum(seconds(each.job) for each in measurement.outcomes.values())
        pace = taken / expected if expected else 1.0

        def paced(job: Job) -> float:
            return pace * seconds(job, standing)

        left_s = None if self.budget_s is None else max(0.0, self.budget_s - taken)
        others = further_jobs(jobs, paced, left_s)
        progress.expect(others, speeds)
        cut += _run(others.jobs, measurement, progress, paced, may_begin)
        evidence = Evidence(self.defence, measurement.outcomes, times)
        return Result(
            defence=self.defence, eps=self.eps, pictures=self.pictures.name, images=len(self.pictures), times=times,
            seed=self.seed, command=command, outcomes=measurement.outcomes,
            signs=masking_signs(measurement.outcomes, evidence.classes), verdicts=verdicts(evidence),
            left_out=(*first.left_out, *others.left_out, *cut), speeds=speeds,
            gradient_precision=self.gradient_precision,
        )  # fmt: skip


def _run(
    jobs: Sequence[Job],
    measurement: Measurement,
    progress: Progress,
    seconds: Callable[[Job], float],
    may_begin: Callable[[float], bool],
) -> list[str]:
    """Run the jobs. Return the jobs that the time did not suffice for, in words."""
    cut = []
    for job in jobs:
        if not measurement.run(job, seconds(job), progress, may_begin):
            done = measurement.outcomes.get(job.name)
            cut.append(f"{job.name}: {done.pictures if done else 0} of {job.pictures} pictures, the time ran out")
    return cut
