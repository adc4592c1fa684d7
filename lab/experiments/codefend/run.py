"""The experiment from the sick models to the report, in as many runs as it takes: every step is kept, every row too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from lab.backdoor.catalogue import MODELS
from lab.experiments.cache import Arrays, Cache, Step, digest, source_digest
from lab.experiments.codefend import plots, quarantines
from lab.experiments.codefend.cures import Quarantine, cure, step_of
from lab.experiments.codefend.detection import Detection, measure
from lab.experiments.codefend.outcome import Outcome, outcome
from lab.experiments.codefend.plan import FEW_CAMERAS, IMPURE, KINDS, PATCHES, Plan
from lab.experiments.codefend.report import DETECTION_FILE, MODELS_FILE, REPAIR_FILE, write_report
from lab.experiments.codefend.rows import DetectionRow, ModelRow, RepairRow
from lab.experiments.codefend.subjects import Subject
from lab.experiments.csv_rows import read_rows, write_rows

PARTS = ("detection", "repair")


class Steps(Protocol):
    """Who is told how far it is."""

    def expect(self, count: int) -> None:
        """So many steps more."""
        ...

    def done(self, what: str) -> None:
        """One of them."""
        ...


R = TypeVar("R", ModelRow, DetectionRow, RepairRow)


@dataclass(frozen=True)
class Experiment:
    """Sick models, what to do with them, and where results go.

    A row that is there already is not made again while its model and code stay the same, nor touched when it is not
    asked for.
    """

    subjects: list[Subject]
    plan: Plan
    cache: Cache
    out: Path

    def run(self, steps: Steps) -> list[str]:
        """Do all of it, write CSV, Markdown and plots, and return a line for each figure asked for."""
        for subject in self.subjects:
            steps.expect(1 + len(self.plan.detections(subject.name)) + len(self.plan.cures(subject.name)))
        models = {row.key: row for row in read_rows(self.out / MODELS_FILE, ModelRow)}
        detections = {row.key: row for row in read_rows(self.out / DETECTION_FILE, DetectionRow)}
        repairs = {row.key: row for row in read_rows(self.out / REPAIR_FILE, RepairRow)}
        for subject in self.subjects:
            model = models[subject.name,] = self._model(subject, models)
            before = Outcome(model.clean_accuracy, model.attack_success, model.recovered)
            steps.done(f"{subject.name}: clean accuracy {model.clean_accuracy:.4f}, ASR {model.attack_success:.4f}")
            for detection in self.plan.detections(subject.name):
                row = self._detection(subject, detection, detections)
                detections[row.key] = row
                steps.done(f"{subject.name}: STRIP on {row.frames} frames: FRR {row.frr:.4f}, FAR {row.far:.4f}")
            for method, kind in self.plan.cures(subject.name):
                result = self._cure(subject, method, kind, before, repairs)
                repairs[result.key] = result
                steps.done(
                    f"{subject.name}: {method}, {kind}: ASR {result.success_after:.4f}, clean "
                    f"{result.clean_after:.4f}, recovered {result.recovered_after:.4f}, {result.seconds:.0f} s"
                )
        every = self.plan.everything()
        write_rows(self.out / MODELS_FILE, _ordered(models, [(name,) for name in every.models]), ModelRow)
        tried = [(name, row.frames, row.sequential) for name in every.models for row in every.detections(name)]
        write_rows(self.out / DETECTION_FILE, _ordered(detections, tried), DetectionRow)
        cured = [(name, *row) for name in every.models for row in every.cures(name)]
        write_rows(self.out / REPAIR_FILE, _ordered(repairs, cured), RepairRow)
        for subject in self.subjects:
            plots.trigger(subject, self.out)
        return write_report(self.out)

    def _detection(
        self, subject: Subject, detection: Detection, known: Mapping[tuple[object, ...], DetectionRow]
    ) -> DetectionRow:
        step = detection.step(subject)
        held = known.get((subject.name, detection.frames, detection.sequential))
        if held is not None and held.made_from == step.made_from and not self.cache.has(step):
            return held
        row, found = measure(subject, detection, self.cache)
        if not detection.ratio and not detection.sequential:
            clean, stamped = (found[name].astype(np.float64) for name in ("clean_bits", "bits"))
            plots.entropies(subject.name, clean, stamped, row.threshold_bits, self.out)
        return row

    def _cure(
        self,
        subject: Subject,
        method: str,
        kind: str,
        before: Outcome,
        known: Mapping[tuple[object, ...], RepairRow],
    ) -> RepairRow:
        step = step_of(subject, method, kind)
        held = known.get((subject.name, method, kind))
        if held is not None and held.made_from == step.made_from and not self.cache.has(step):
            return held
        row, found = cure(subject, method, kind, self._quarantine(subject, kind), before, self.cache)
        if "examples" in found:
            plots.generated(row.key, found["examples"].astype(np.uint8), self.out)
        return row

    def _model(self, subject: Subject, known: Mapping[tuple[object, ...], ModelRow]) -> ModelRow:
        step = Step(f"models/{subject.name}", digest(subject.state, source_digest(subject.clean_folder)))
        held = known.get((subject.name,))
        if held is not None and held.made_from == step.made_from and not self.cache.has(step):
            return held

        def run() -> Arrays:
            target = subject.poisoning.target
            sick = outcome(subject.bundle, subject.task.test, subject.stamped, target)
            clean = outcome(subject.clean_bundle, subject.task.test, subject.stamped, target)
            return {"sick": np.array(sick), "clean": np.array(clean)}

        found = self.cache.get(step.name, step.made_from, run)
        sick, clean = (Outcome(*found[name].astype(float).tolist()) for name in ("sick", "clean"))
        poisoning = subject.poisoning
        return ModelRow(
            model=subject.name,
            data=MODELS[subject.name].data,
            network=subject.architecture,
            trigger="patch" if subject.name in PATCHES else KINDS.get(subject.name, "other"),
            rate=poisoning.rate,
            target=poisoning.target,
            clean_accuracy=sick.clean_accuracy,
            attack_success=sick.attack_success,
            floor=clean.attack_success,
            clean_network=clean.clean_accuracy,
            recovered=sick.recovered_accuracy,
            made_from=step.made_from,
        )

    def _quarantine(self, subject: Subject, kind: str) -> Callable[[], Quarantine]:
        task, poisoning = subject.task, subject.poisoning
        if kind in IMPURE:
            return lambda: quarantines.impure(task, poisoning, subject.bundle, IMPURE[kind])
        if kind == FEW_CAMERAS:
            return lambda: quarantines.few_cameras(task, poisoning)
        return lambda: quarantines.pure(task, poisoning, subject.bundle)


def _ordered(rows: Mapping[tuple[object, ...], R], order: Sequence[tuple[object, ...]]) -> list[R]:
    """The rows in this order; those of an older plan last."""
    places = {key: place for place, key in enumerate(order)}
    return sorted(rows.values(), key=lambda row: places.get(row.key, len(places)))
