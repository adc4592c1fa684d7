"""The result of a run: the document of `--json`, and the rows of its CSV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lab.red_team.defences import KNOWLEDGE, Defence
from lab.red_team.evidence import Verdict
from lab.red_team.outcomes import Outcome, attacked_pictures, worst_case
from lab.red_team.plan import CLEAN, COMPARED, GRADIENTS, MAIN, Speeds
from lab.statistics import Interval, wilson
from processors.device.precision import Precision

JUDGES: Final = (MAIN, "square", "transfer", "targeted", "auto-attack")
"""Attacks that must all have run on the same pictures before a figure is called a worst case."""


@dataclass(frozen=True)
class Row:
    """One job in numbers: shares of the pictures `compared`, which were chosen independently of other attacks."""

    name: str
    kind: str
    variant: str
    eps: float
    steps: int
    samples: int
    step: float | None
    random_start: bool
    targeted: bool
    queries: int
    counts: bool
    pictures: int
    compared: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    every_time: float
    every_time_low: float
    every_time_high: float
    target_reached: float | None
    linf: float
    seconds: float


@dataclass(frozen=True)
class Result:
    """All data that a page is made from."""

    defence: Defence
    eps: float
    pictures: str
    images: int
    times: int
    seed: int
    command: str
    outcomes: Mapping[str, Outcome]
    signs: list[str]
    verdicts: Mapping[str, Verdict]
    left_out: tuple[str, ...]
    speeds: Speeds
    gradient_precision: Precision = "float32"

    @cached_property
    def standing(self) -> NDArray[np.bool_]:
        """The pictures that no attack has broken, of those (n,) that met one."""
        return worst_case(self.outcomes.values(), attacked_pictures(self.outcomes))

    @property
    def worst(self) -> Interval | None:
        """The share of these pictures; None if no attack ran."""
        return wilson(int(self.standing.sum()), len(self.standing)) if len(self.standing) else None

    @property
    def judges(self) -> list[str]:
        """The attacks of `JUDGES` that ran."""
        return [name for name in JUDGES if name in self.outcomes]

    @property
    def judged(self) -> int:
        """The number of first pictures that all of these attacks processed, except for broken ones."""
        return min((self.outcomes[name].pictures for name in self.judges), default=0)

    @property
    def worst_judged(self) -> Interval | None:
        """The unbroken share of the first `judged` pictures: the strictest figure, over fewer pictures."""
        return wilson(int(self.standing[: self.judged].sum()), self.judged) if self.judged else None

    @property
    def attacks(self) -> dict[str, Outcome]:
        """The attacks on the defence itself within the bound."""
        return {name: each for name, each in self.outcomes.items() if each.job.counts and name != CLEAN}

    @property
    def strongest(self) -> str | None:
        """The attack under which the fewest of the same first pictures are always classified correctly.

        Costly attacks run on `COMPARED` pictures, others on a thousand: their shares do not compare. An attack on fewer
        than half of `COMPARED` pictures is left out.
        """
        met = {name: int(each.compared.sum()) for name, each in self.attacks.items()}
        wanted = min(COMPARED, max(met.values(), default=0))
        many = [name for name, count in met.items() if 2 * count >= wanted]
        common = min((met[name] for name in many), default=0)
        return min(many, key=lambda name: int(self.attacks[name].survived[:common].sum()), default=None)

    def rows(self) -> list[Row]:
        """Return a row for each job that gives answers."""
        return [_row(name, each) for name, each in self.outcomes.items() if name != GRADIENTS]

    def document(self) -> dict[str, Any]:
        """Return the document for JSON.

        Accuracies are those of one submission per picture. The worst case is over all attacks and submissions.
        """
        clean = self.outcomes[CLEAN]
        judged, worst = self.worst_judged, self.worst
        return {
            "clean_accuracy": clean.accuracy.value,
            "worst_case_accuracy": None if worst is None else worst.value,
            "worst_case_images": len(self.standing),
            "per_attack": {name: each.accuracy.value for name, each in self.attacks.items()},
            "masking_signs": self.signs,
            "checklist": {point: verdict.status for point, verdict in self.verdicts.items()},
            "reasons": {point: verdict.why for point, verdict in self.verdicts.items()},
            "intervals": {
                "clean_accuracy": list(clean.accuracy[1:]),
                "worst_case_accuracy": None if worst is None else list(worst[1:]),
                **{name: list(each.accuracy[1:]) for name, each in self.attacks.items()},
            },
            "worst_case_of_judged": None
            if judged is None
            else {
                "images": self.judged, "accuracy": judged.value, "interval": list(judged[1:]), "attacks": self.judges,
            },
            "strongest": self.strongest,
            "images": self.images,
            "eps": self.eps,
            "left_out": list(self.left_out),
            "attacks": [asdict(row) for row in self.rows()],
            "settings": {
                "bundle": self.defence.bundle.model_id,
                "defence": self.defence.name,
                "knowledge": KNOWLEDGE[self.defence.name],
                "drop": self.defence.ratio if self.defence.drops else None,
                "surrogate": None if self.defence.surrogate is None else self.defence.surrogate.model_id,
                "data": self.pictures,
                "submissions": self.times,
                "seed": self.seed,
                "gradient_precision": self.gradient_precision,
                "device": str(self.defence.bundle.device),
                "command": self.command,
            },
        }  # fmt: skip


def _row(name: str, each: Outcome) -> Row:
    effort, accuracy, worst = each.job.effort, each.accuracy, each.worst
    return Row(
        name, effort.kind, each.job.variant, each.job.eps, effort.steps, effort.samples, effort.step,
        effort.random_start, effort.targeted, effort.queries, each.job.counts, each.pictures,
        int(each.compared.sum()), *accuracy, *worst, each.success, each.linf, each.seconds,
    )  # fmt: skip
