"""All networks through their rows of the plan; each row is kept, the report is written from those that are there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from lab.backdoor.tasks import load_task
from lab.experiments.cache import Cache, Step, digest
from lab.experiments.cells import Cell, Scores, Steps, measure
from lab.experiments.provenance import made_by
from lab.experiments.qusecnets import attacked, report, steep_report
from lab.experiments.qusecnets.judges import Judge
from lab.experiments.qusecnets.plan import AttackRow, Plan
from lab.experiments.qusecnets.steepness import (
    BASE,
    HELD_OUT,
    PICTURES,
    STEEP,
    TEST,
    Point,
    at_steepness,
    chosen,
    curve,
)
from lab.experiments.qusecnets.training import SHIPPED, trained
from lab.results.csv_rows import write_rows


@dataclass(frozen=True)
class Experiment:
    """What to measure, and where the results go. `data` is the folder of the data sets."""

    names: tuple[str, ...]
    data: Path
    plan: Plan
    cache: Cache
    out: Path
    command: str
    finished: bool = False
    """Measure nothing: only what is kept goes on the page."""

    def run(self, steps: Steps) -> list[str]:
        """Train what is not there, measure, write CSV, Markdown and plots; a line for each figure asked for.

        Rows of networks that are not named stay on the page as an earlier run left them.
        """
        judges = self._judges()
        if STEEP in self.names:
            points = self._steepen(judges)
            write_rows(self.out / steep_report.STEEPNESS_FILE, points, Point)
            steps.done(f"{STEEP}: z = {chosen(points):g}")
        cells = [cell for name in self.names for cell in self._cells(judges, name)]
        if self.finished:
            there = [cell for cell in cells if self.cache.has(Step(cell.place, cell.made_from))]
            # The worst case is no measurement of its own: it can be had where all the others are.
            open_still = {cell.subject for cell in cells if cell not in there and cell.attack != "worst"}
            cells = [
                cell for cell in cells if cell in there or (cell.attack == "worst" and cell.subject not in open_still)
            ]
        rows = measure(cells, self.cache, self.cache.folder / report.ROWS_FILE, steps)
        report.write_rows_beside(self.out, self.names, rows)
        models = {name: judges[name].bundle.model_id for name in self.names}
        report.write_settings(self.out, self.command, self.plan, models)
        return report.write_report(self.out)

    def _judges(self) -> dict[str, Judge]:
        judges = {}
        wanted = [BASE if name == STEEP else name for name in self.names]
        plain = [_plain(name) for name in wanted]
        for data in dict.fromkeys(map(_data, wanted)):
            task = load_task(data, self.data)
            for name in dict.fromkeys((*wanted, *plain)):
                if _data(name) == data:
                    work = self.cache.folder / "networks"
                    folder = SHIPPED / name if (SHIPPED / name).is_dir() else work / name / "bundle"
                    bundle = trained(name, task, folder, work)
                    judges[name] = Judge(bundle, task.test.first(self.plan.images), task.held_out, self.plan.seed)
        return judges

    def _steepen(self, judges: dict[str, Judge]) -> list[Point]:
        """Add the judge called `STEEP`; what its steepness was chosen on, and what that looks like on test pictures."""
        base, plain = judges[BASE], judges[_plain(BASE)]
        held_out = curve(base, plain, HELD_OUT, self.plan.images, self.cache)
        judges[STEEP] = replace(base, bundle=at_steepness(base.bundle, chosen(held_out), STEEP))
        return [*held_out, *curve(base, plain, TEST, min(PICTURES, self.plan.step_images), self.cache)]

    def _cells(self, judges: dict[str, Judge], name: str) -> list[Cell]:
        judge, plain = judges[name], judges[_plain(name)]
        cells = list[Cell]()
        for row in self.plan.rows(BASE if name == STEEP else name):
            state: tuple[object, ...] = (
                judge.made_from(),
                plain.made_from(),
                row,
                self.plan,
                made_by(attacked.__name__),
            )
            made = partial(attacked.scores, judge, row, self.plan, plain)
            if row.key == "worst":
                made, state = partial(self.worst, list(cells), row), (*state, made_by(__name__))
            cells.append(
                Cell(name, name.partition("-")[2], row.key, row.label, row.targeted, row.eps, digest(state), made)
            )
        return cells

    def worst(self, cells: list[Cell], row: AttackRow) -> Scores:
        """Right under every attack within the row's bound that was made on a picture; slow ones are made on fewer."""
        assert row.eps is not None
        inside = [
            cell.scores(self.cache) for cell in cells
            if cell.attack == "clean" or (cell.eps is not None and cell.eps <= row.eps)
        ]  # fmt: skip
        count = self.plan.pictures(replace(row, slow=False, steps=True))
        correct = np.ones((1, count), np.bool_)
        for found in inside:
            met = min(count, found.correct.shape[1])
            correct[:, :met] &= found.correct[:, :met]
        bound = np.full(count, row.eps)
        return Scores(correct, np.zeros_like(correct), bound, bound)


def _data(name: str) -> str:
    return name.partition("-")[0]


def _plain(name: str) -> str:
    """The network of the same data set without a layer."""
    return f"{_data(name)}-plain"
