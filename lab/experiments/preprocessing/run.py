"""Subjects through the plan; each row is kept as soon as it is there, and the report is written from what there is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from lab.experiments.cache import Cache, Step
from lab.experiments.cells import Steps, measure
from lab.experiments.preprocessing import report
from lab.experiments.preprocessing.attacked import Laboratory
from lab.experiments.preprocessing.defences import NONE, OURS
from lab.experiments.preprocessing.plan import TABLE_3_DEFENCES, Plan
from lab.experiments.preprocessing.subjects import Subject
from lab.experiments.preprocessing.variance import VarianceRow, variance_row
from lab.results.csv_rows import write_rows
from schemas.runtime.atomic_file import replacing

PARTS: Final = ("variance", *Plan().parts)


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
        """Do all of it, write CSV, Markdown and plots; a line for each figure asked for."""
        for subject in self.subjects:
            place = self.out / subject.name
            laboratory = Laboratory(subject, self.plan, self.cache)
            self._note(laboratory, place)
            steps.done(f"{subject.name}: chosen: δ {laboratory.settings.limit:g}, cell {laboratory.settings.cell}")
            write_rows(place / report.VARIANCE, self._variance(laboratory, steps), VarianceRow)
            cells = list(laboratory.cells())
            if self.finished:
                cells = [cell for cell in cells if self.cache.has(Step(cell.place, cell.made_from))]
            measure(cells, self.cache, place / report.ROWS, steps, place / report.CURVES)
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

    def _note(self, laboratory: Laboratory, place: Path) -> None:
        """What the rows were made with."""
        place.mkdir(parents=True, exist_ok=True)
        subject = laboratory.subject
        made = {
            "command": self.command,
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
        with replacing(place / report.SETTINGS) as fresh:
            fresh.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
