"""The whole plan for one judge: each attack is made once, then every defence is measured on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lab.cache import Cache
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
from lab.experiments.super_iot.plan import KEY_RATIOS, AttackRow, Budget
from lab.experiments.super_iot.rows import Comparison, Row
from processors.pipeline import Pipeline
from processors.stages.modes import Mode

MODES: Final[tuple[Mode, ...]] = ("default", "paper")
UNROUNDED_REPEATS: Final = 3


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
    """The measurements of one judge."""

    def __init__(
        self,
        judge: Judge,
        plan: Budget,
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

    def products(self, ratios: tuple[float, ...], repeats: int, paper_repeats: int) -> list[Defence]:
        """Return the defences of both modes at these ratios."""
        return [
            product(self.pipelines[mode], ratio, paper_repeats if mode == PAPER else repeats)
            for mode in MODES
            for ratio in ratios
        ]

    def rows(self, row: AttackRow) -> list[Row]:
        """Return all rows of one attack."""
        pictures = self._attacked(row)
        return [*self._swept(row, pictures), *self._unrounded(row, pictures), *self._all(row, pictures)]

    def comparisons(self) -> list[Comparison]:
        """Return the comparisons over all attacks. Attacks that are not in the cache are measured."""
        for row in self.plan.rows():
            self._swept(row, self._attacked(row))
        return self._compare()

    def _attacked(self, row: AttackRow) -> Adversarial:
        return adversarial(self.judge, row, self.plan, self.cache)

    def _swept(self, row: AttackRow, pictures: Adversarial) -> list[Row]:
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
        return self._rows(Shown(self.judge, row, pictures, count, rounded=True), defences, "sweep")

    def _unrounded(self, row: AttackRow, pictures: Adversarial) -> list[Row]:
        if not len(pictures.unrounded):
            return []
        count = min(len(pictures.unrounded), self.plan.sweep_images)
        shown = Shown(self.judge, row, pictures, count, rounded=False)
        repeats = min(self.plan.repeats, UNROUNDED_REPEATS)
        defences = [product(self.pipelines["default"], ratio, repeats) for ratio in self._key_ratios()]
        return self._rows(shown, [undefended(), *defences], "sweep")

    def _all(self, row: AttackRow, pictures: Adversarial) -> list[Row]:
        count = len(pictures.images)
        if count <= self.plan.sweep_images:
            return []
        shown = Shown(self.judge, row, pictures, count, rounded=True)
        default = [product(self.pipelines["default"], ratio, 1) for ratio in self._key_ratios()]
        return self._rows(shown, [undefended(), *default], "all")

    def _key_ratios(self) -> tuple[float, ...]:
        return tuple(ratio for ratio in self.plan.ratios if ratio in KEY_RATIOS)

    def _rows(self, shown: Shown, defences: list[Defence], scope: str) -> list[Row]:
        bare = outcome(shown, undefended(), self.plan.seed, self.cache)
        distances = shown.distances()
        rows = []
        for defence in defences:
            found = outcome(shown, defence, self.plan.seed, self.cache)
            rows.append(summed_up(shown, defence, found, bare, distances, scope))
            if scope == "sweep" and shown.rounded:
                self.sweep.add(defence, shown.row, found.correct)
        return rows

    def _compare(self) -> list[Comparison]:
        name, rows = self.judge.name, list(self.plan.rows())
        ours, paper = self.sweep.line(lambda n: n == DEFAULT), self.sweep.line(lambda n: n == PAPER)
        (bare,) = self.sweep.line(lambda n: n == NONE)
        known = {defence.name for defence in self.baselines}
        others = self.sweep.line(lambda n: n in known)
        return [*against_paper(name, ours, paper, rows), *matched(name, bare, ours, others, rows)]
