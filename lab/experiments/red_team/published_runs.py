"""Runs of the whole checklist whose figures are published: as rows, they become stale when their code changes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from lab.data import LabelledPictures, to_frames
from lab.experiments.hardening.paired import packed
from lab.red_team.defences import Defence, sample_size
from lab.red_team.jobs import Job
from lab.red_team.pages import run_name, write_pages
from lab.red_team.plan import CLEAN, Plan, Speeds
from lab.red_team.run import RedTeam
from processors.bundle import Bundle

SEED: Final = 0
IMAGES: Final = 1000
DEFENCE: Final = "fleet"
DROP_RATIO: Final = 0.25
GRADIENT_PRECISION: Final = "bf16"


@dataclass(frozen=True)
class PublishedRun:
    """All attacks on a shipped bundle behind the fleet's defence; `eps` is L∞ on frames in [0, 1]."""

    bundle: str
    eps: str
    seconds: float
    """Estimated cost on one core."""

    @property
    def name(self) -> str:
        """The name of its row, and of its folders."""
        return run_name(self.bundle, DEFENCE, DROP_RATIO, self.strength)

    @property
    def strength(self) -> float:
        """The L∞ bound as a number."""
        return float(Fraction(self.eps))

    @property
    def command(self) -> str:
        """The command that makes the same pages."""
        return (
            f"pointillist lab red-team --bundle {self.bundle} --images {IMAGES} --eps {self.eps} "
            f"--gradient-precision {GRADIENT_PRECISION} --out docs/results/red-team"
        )


RUNS: Final = (
    PublishedRun("cifar10-hardened", "8/255", 8 * 3600),
    PublishedRun("cifar10-hardened", "0.01", 14 * 3600),
)


@dataclass(frozen=True)
class Row:
    """Shares of the pictures: correct without an attack, and after every attack in each of `submissions`."""

    network: str
    defence: str
    drop_ratio: float
    eps: float
    images: int
    submissions: int
    gradient_precision: str
    attacks: int
    clean: float
    clean_low: float
    clean_high: float
    worst: float
    worst_low: float
    worst_high: float
    strongest: str
    points_not_passed: int
    """Points of the checklist that failed or were not run."""
    standing: str
    """The pictures that no attack has broken, as `packed` writes them."""


class _NoProgress:
    def expect(self, plan: Plan, speeds: Speeds) -> None:
        pass

    def batch(self, job: Job, pictures: int, seconds: float, kept: bool) -> None:
        pass


def measure(run: PublishedRun, bundle: Bundle, pictures: LabelledPictures, runs: Path, pages: Path) -> Row:
    """Attack the bundle, write the run's page below `pages`, and return its row.

    `runs` has the finished batches of `lab red-team --runs`, from which the same run resumes.
    """
    sample = to_frames(pictures.first(sample_size(*pictures.images.shape[1:3])).images, bundle.device)
    defence = Defence(DEFENCE, bundle, DROP_RATIO, sample, None)
    team = RedTeam(defence, pictures, run.strength, runs / run.name, seed=SEED, gradient_precision=GRADIENT_PRECISION)
    result = team.run(_NoProgress(), run.command)
    write_pages(pages, run.name, result)
    clean, worst = result.outcomes[CLEAN].accuracy, result.worst
    if worst is None:
        raise AssertionError("all attacks have run")
    return Row(
        bundle.model_id, DEFENCE, DROP_RATIO, run.strength, len(result.standing), result.times,
        result.gradient_precision, len(result.attacks), *clean, *worst, str(result.strongest),
        sum(verdict.status != "passed" for verdict in result.verdicts.values()), packed(result.standing),
    )  # fmt: skip
