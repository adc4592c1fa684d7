"""Subjects through the plan; each row is kept as soon as it is there, and the report is written from what there is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeVar

from lab.experiments.cache import Cache, Step
from lab.experiments.cells import Point, Row, Steps, measure
from lab.experiments.preprocessing import report
from lab.experiments.preprocessing.attacked import Laboratory
from lab.experiments.preprocessing.defences import NONE, OURS
from lab.experiments.preprocessing.plan import TABLE_3_DEFENCES, Plan
from lab.experiments.preprocessing.subjects import Subject
from lab.experiments.preprocessing.variance import VarianceRow, variance_row
from lab.results.csv_rows import write_rows
from schemas.runtime.atomic_file import replacing

PARTS: Final = ("variance", *Plan().parts)
SAME: Final = ("model_id", "chosen", "rate", "looked_at")
"""Of the settings: what rows on one page have in common."""
Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Experiment:
    """What to measure with, and where the results go."""

    subjects: list[Subject]
    plan: Plan
    cache: Cache
    out: Path
    command: str
    finished: bool = False
    """Measure nothing: only what is kept goes on the page."""

    def run(self, steps: Steps) -> list[str]:
        """Do all of it, write CSV, Markdown and plots; a line for each figure asked for.

        Rows that this run does not measure stay on the page, as long as the network and its settings are the same.
        """
        for subject in self.subjects:
            place = self.out / subject.name
            laboratory = Laboratory(subject, self.plan, self.cache)
            kept = self._note(laboratory, place)
            steps.done(f"{subject.name}: chosen: δ {laboratory.settings.limit:g}, cell {laboratory.settings.cell}")
            cells = list(laboratory.cells())
            if self.finished:
                cells = [cell for cell in cells if self.cache.has(Step(cell.place, cell.made_from))]
            work = self.cache.folder / subject.name / "rows"
            rows = measure(cells, self.cache, work / report.ROWS, steps, work / report.CURVES)
            points = [
                Point(cell.subject, cell.defence, cell.attack, number, *point)
                for cell in cells
                for number, point in enumerate(cell.scores(self.cache).curve.tolist(), start=1)
            ]
            write_rows(place / report.ROWS, beside(kept.rows if kept else [], rows, _row), Row)
            write_rows(place / report.CURVES, beside(kept.points if kept else [], points, _line), Point)
            # Last, for the attacker's auto-encoder takes minutes to train on larger pictures.
            variance = beside(kept.variance if kept else [], self._variance(laboratory, steps), lambda row: row.defence)
            write_rows(place / report.VARIANCE, variance, VarianceRow)
        return report.write_report(self.out)

    def _variance(self, laboratory: Laboratory, steps: Steps) -> list[VarianceRow]:
        shown = laboratory.subject.judged.part(slice(self.plan.variance_images))
        names = [name for name in TABLE_3_DEFENCES if name != NONE]
        steps.expect(len(names))
        rows = []
        for name in names:
            rows.append(variance_row(laboratory.subject, laboratory.functions[name], shown, self.cache, None))
            steps.done(f"{laboratory.subject.name}, {name}: clean {rows[-1].accuracy:.3f} of {rows[-1].n}")
        if "adaptive" in self.plan.parts and not self.finished:
            ours = laboratory.functions[OURS]
            rows.append(variance_row(laboratory.subject, ours, shown, self.cache, laboratory.surrogate))
        return rows

    def _note(self, laboratory: Laboratory, place: Path) -> report.Results | None:
        """Write what the rows were made with; the earlier results that were made with the same."""
        place.mkdir(parents=True, exist_ok=True)
        subject = laboratory.subject
        made: dict[str, object] = {
            "torch": version("torch"),
            "model_id": subject.bundle.model_id,
            "network_input": list(subject.judged.frames.shape[1:]),
            "looked_at": subject.judged.total,
            "correct": len(subject.judged),
            "chosen": asdict(laboratory.settings),
            "rate": laboratory.rate,
            "kept_on_validation": laboratory.chosen.kept,
            "left_on_validation_after_bpda": laboratory.chosen.left,
            "plan": asdict(self.plan),
        }
        made = json.loads(json.dumps(made))
        earlier = report.read_result(place) if all((place / name).is_file() for name in report.FILES) else None
        if earlier is not None and any(earlier.settings.get(name) != made[name] for name in SAME):
            earlier = None
        before = earlier.settings["commands"] if earlier else []
        made = {"commands": [*(each for each in before if each != self.command), self.command], **made}
        with replacing(place / report.SETTINGS) as fresh:
            fresh.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        return earlier


def beside(kept: Sequence[Measured], fresh: Sequence[Measured], key: Callable[[Measured], object]) -> list[Measured]:
    """`fresh`, and those of `kept` with another key, in the order of `kept`: nothing is on the page twice."""
    new: dict[object, list[Measured]] = {}
    for row in fresh:
        new.setdefault(key(row), []).append(row)
    again = set(new)
    found = list[Measured]()
    for row in kept:
        found += new.pop(key(row), []) if key(row) in again else [row]
    return found + [row for rows in new.values() for row in rows]


def _row(row: Row) -> object:
    return row.defence, row.attack, row.targeted


def _line(point: Point) -> object:
    return point.defence, point.attack
