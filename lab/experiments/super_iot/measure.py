"""One judge through the whole plan: attacked once, then every defence on every row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from lab.experiments.cache import Cache
from lab.experiments.super_iot.compare import Setting, against_paper, matched
from lab.experiments.super_iot.defences import (
    DEFAULT,
    NONE,
    PAPER,
    Defence,
    OtherWeights,
    product,
    undefended,
    without_attacks,
)
from lab.experiments.super_iot.judges import Adversarial, Judge, adversarial
from lab.experiments.super_iot.outcomes import Shown, outcome, summed_up
from lab.experiments.super_iot.plan import KEY_RATIOS, AttackRow, Plan
from lab.experiments.super_iot.rows import Comparison, Row
from processors.modes import Mode
from processors.pipeline import Pipeline

MODES: Final[tuple[Mode, ...]] = ("default", "paper")
UNROUNDED_REPEATS: Final = 3


class Steps(Protocol):
    """A receiver of the number of steps, and of each finished step."""

    def expect(self, count: int) -> None:
        """Expect this many more steps."""

    def done(self, what: str) -> None:
        """Report one finished step."""


@dataclass
class Measured:
    """Rows and comparisons of one judge."""

    rows: list[Row] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)


@dataclass
class _Sweep:
    """Outcomes on the same pictures, by defence and ratio, then by attack row."""

    settings: dict[tuple[str, float | None], dict[AttackRow, NDArray[np.bool_]]] = field(default_factory=dict)

    def add(self, defence: Defence, row: AttackRow, correct: NDArray[np.bool_]) -> None:
        self.settings.setdefault((defence.name, defence.ratio), {})[row] = correct

    def line(self, wanted: Callable[[str], bool]) -> list[Setting]:
        """Return the wanted defences' settings that were measured on clean pictures, by rising ratio."""
        found = [
            Setting(name, ratio, correct)
            for (name, ratio), correct in self.settings.items()
            if wanted(name) and any(row.key == "clean" for row in correct)
        ]
        return sorted(found, key=lambda setting: setting.ratio or 0.0)


class Measurement:
    """The parameters that are the same for all of a judge's rows."""

    def __init__(
        self,
        judge: Judge,
        plan: Plan,
        baselines: list[Defence],
        weights: OtherWeights | None,
        cache: Cache,
    ) -> None:
        self.judge = judge
        self.plan = plan
        self.baselines = baselines
        self.weights = weights
        self.cache = cache
        self.pipelines = {mode: Pipeline(judge.bundle, mode) for mode in MODES}
        self.sweep = _Sweep()
        self.result = Measured()

    def products(self, ratios: tuple[float, ...], repeats: int, paper_repeats: int) -> list[Defence]:
        """Return both modes at some ratios. At one ratio both use the same masks."""
        return [
            product(self.pipelines[mode], ratio, paper_repeats if mode == PAPER else repeats)
            for mode in MODES
            for ratio in ratios
        ]

    def attack(self, steps: Steps) -> None:
        """Make the missing adversarial pictures of every row."""
        rows = self.plan.rows()
        steps.expect(len(rows))
        for row in rows:
            pictures = self._attacked(row)
            steps.done(f"{self.judge.name}: {row.id}, {len(pictures.images)} pictures attacked")

    def measure(self, steps: Steps) -> Measured:
        """Return all rows and comparisons."""
        rows = self.plan.rows()
        steps.expect(len(rows))
        for row in rows:
            pictures = self._attacked(row)
            self._swept(row, pictures)
            self._unrounded(row, pictures)
            self._all(row, pictures)
            steps.done(f"{self.judge.name}: {row.id}, {len(pictures.images)} pictures measured")
        self._compare()
        return self.result

    def _attacked(self, row: AttackRow) -> Adversarial:
        return adversarial(self.judge, row, self.plan, self.cache)

    def _swept(self, row: AttackRow, pictures: Adversarial) -> None:
        count = min(len(pictures.images), self.plan.sweep_images)
        defences = [
            undefended(),
            *self.baselines,
            *self.products(self.plan.ratios_of(row), self.plan.repeats, self.plan.paper_repeats),
        ]
        if self.weights is not None:
            pipeline = self.pipelines["default"]
            defences += [
                without_attacks(self.weights, pipeline, ratio, self.plan.repeats) for ratio in self._key_ratios()
            ]
        self._rows(Shown(self.judge, row, pictures, count, rounded=True), defences, "sweep")

    def _unrounded(self, row: AttackRow, pictures: Adversarial) -> None:
        if len(pictures.unrounded):
            count = min(len(pictures.unrounded), self.plan.sweep_images)
            shown = Shown(self.judge, row, pictures, count, rounded=False)
            repeats = min(self.plan.repeats, UNROUNDED_REPEATS)
            defences = [product(self.pipelines["default"], ratio, repeats) for ratio in self._key_ratios()]
            self._rows(shown, [undefended(), *defences], "sweep")

    def _all(self, row: AttackRow, pictures: Adversarial) -> None:
        count = len(pictures.images)
        if count > self.plan.sweep_images:
            shown = Shown(self.judge, row, pictures, count, rounded=True)
            default = [product(self.pipelines["default"], ratio, 1) for ratio in self._key_ratios()]
            self._rows(shown, [undefended(), *default], "all")

    def _key_ratios(self) -> tuple[float, ...]:
        return tuple(ratio for ratio in self.plan.ratios if ratio in KEY_RATIOS)

    def _rows(self, shown: Shown, defences: list[Defence], scope: str) -> None:
        bare = outcome(shown, undefended(), self.plan.seed, self.cache)
        distances = shown.distances()
        for defence in defences:
            found = outcome(shown, defence, self.plan.seed, self.cache)
            self.result.rows.append(summed_up(shown, defence, found, bare, distances, scope))
            if scope == "sweep" and shown.rounded:
                self.sweep.add(defence, shown.row, found.correct)

    def _compare(self) -> None:
        name, rows = self.judge.name, list(self.plan.rows())
        ours, paper = self.sweep.line(lambda n: n == DEFAULT), self.sweep.line(lambda n: n == PAPER)
        (bare,) = self.sweep.line(lambda n: n == NONE)
        known = {defence.name for defence in self.baselines}
        others = self.sweep.line(lambda n: n in known)
        self.result.comparisons = [*against_paper(name, ours, paper, rows), *matched(name, bare, ours, others, rows)]
