"""The experiment from the sick models to the report, in as many runs as it takes: every step is kept, every row too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeGuard, TypeVar

import numpy as np

from lab.backdoor.catalogue import MODELS
from lab.backdoor.files import stamped_pictures
from lab.experiments.cache import Arrays, Cache, Step, digest, source_digest
from lab.experiments.codefend import plots, quarantines
from lab.experiments.codefend.cures import Quarantine, cure, step_of
from lab.experiments.codefend.detection import Detection, measure
from lab.experiments.codefend.outcome import Outcome, outcome
from lab.experiments.codefend.plan import EVERY, FEW_CAMERAS, IMPURE, KINDS, PATCHES, Plan
from lab.experiments.codefend.report import DETECTION_FILE, MODELS_FILE, REPAIR_FILE, write_report
from lab.experiments.codefend.rows import DetectionRow, ModelRow, RepairRow
from lab.experiments.codefend.subjects import Subject
from lab.experiments.provenance import made_by
from lab.results.csv_rows import read_rows, write_rows

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
Key = tuple[object, ...]


class Rows(NamedTuple):
    """All rows, by what they are rows of."""

    models: dict[Key, ModelRow]
    detections: dict[Key, DetectionRow]
    repairs: dict[Key, RepairRow]


@dataclass(frozen=True)
class Experiment:
    """Sick models, what to do with them, and where results go.

    A row that is there already is not made again while its `made_from` holds, nor touched when it is not asked for.
    Rows are written model by model.
    """

    subjects: list[Subject]
    plan: Plan
    cache: Cache
    out: Path

    def run(self, steps: Steps) -> list[str]:
        """Do all of it, write CSV, Markdown and plots, and return a line for each figure asked for."""
        for subject in self.subjects:
            steps.expect(1 + len(self.plan.detections(subject.name)) + len(self.plan.cures(subject.name)))
        for subject in self.subjects:
            known = self._rows()
            model = self._model(subject, known)
            steps.done(f"{subject.name}: clean accuracy {model.clean_accuracy:.4f}, ASR {model.attack_success:.4f}")
            detections = []
            for detection in self.plan.detections(subject.name):
                found = self._detection(subject, detection, known)
                detections.append(found)
                steps.done(f"{subject.name}: STRIP on {found.frames} frames: FRR {found.frr:.4f}, FAR {found.far:.4f}")
            before = Outcome(model.clean_accuracy, model.attack_success, model.recovered)
            repairs = []
            for method, kind in self.plan.cures(subject.name):
                result = self._cure(subject, method, kind, before, known)
                repairs.append(result)
                steps.done(
                    f"{subject.name}: {method}, {kind}: ASR {result.success_after:.4f}, clean "
                    f"{result.clean_after:.4f}, recovered {result.recovered_after:.4f}, {result.seconds:.0f} s"
                )
            plots.trigger(subject, self.out)
            self._write([model], detections, repairs)
        return write_report(self.out)

    def _rows(self) -> Rows:
        """What is there already."""
        return Rows(
            {row.key: row for row in read_rows(self.out / MODELS_FILE, ModelRow)},
            {row.key: row for row in read_rows(self.out / DETECTION_FILE, DetectionRow)},
            {row.key: row for row in read_rows(self.out / REPAIR_FILE, RepairRow)},
        )

    def _write(self, models: list[ModelRow], detections: list[DetectionRow], repairs: list[RepairRow]) -> None:
        """Put new rows among those that are there: another run may have written some since this one began."""
        every = Plan()
        there = self._rows()
        order: list[Key] = [(name,) for name in every.models]
        write_rows(self.out / MODELS_FILE, _with(there.models, models, order), ModelRow)
        order = [(name, row.frames, row.sequential) for name in every.models for row in every.detections(name)]
        write_rows(self.out / DETECTION_FILE, _with(there.detections, detections, order), DetectionRow)
        order = [(name, *row) for name in every.models for row in every.cures(name)]
        write_rows(self.out / REPAIR_FILE, _with(there.repairs, repairs, order), RepairRow)

    def _holds(self, row: R | None, step: Step) -> TypeGuard[R]:
        """Whether `row` need not be made again, and can not be shown anew for want of what was kept."""
        return row is not None and row.made_from == step.made_from and not self.cache.has(step)

    def _detection(self, subject: Subject, detection: Detection, known: Rows) -> DetectionRow:
        held = known.detections.get((subject.name, detection.frames, detection.sequential))
        if self._holds(held, detection.step(subject)):
            return held
        row, found = measure(subject, detection, self.cache)
        if not detection.ratio and not detection.sequential:
            clean, stamped = (found[name].astype(np.float64) for name in ("clean_bits", "bits"))
            plots.entropies(subject.name, clean, stamped, row.threshold_bits, self.out)
        return row

    def _cure(self, subject: Subject, method: str, kind: str, before: Outcome, known: Rows) -> RepairRow:
        held = known.repairs.get((subject.name, method, kind))
        if self._holds(held, step_of(subject, method, kind)):
            return held
        row, found = cure(subject, method, kind, self._quarantine(subject, kind), before, self.cache)
        if "examples" in found:
            plots.generated(row.key, found["examples"].astype(np.uint8), self.out)
        return row

    def _model(self, subject: Subject, known: Rows) -> ModelRow:
        step = Step(
            f"models/{subject.name}",
            digest(subject.state, source_digest(subject.clean_folder), made_by(Outcome.__module__)),
        )
        held = known.models.get((subject.name,))
        if self._holds(held, step):
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
        if kind == EVERY:
            seen = task.stream.take(np.flatnonzero(poisoning.attacks(task.stream.labels)))
            return lambda: stamped_pictures(seen, poisoning, first_key=2 * 10**6).images
        if kind == FEW_CAMERAS:
            return lambda: quarantines.few_cameras(task, poisoning)
        return lambda: quarantines.pure(task, poisoning, subject.bundle)


def _with(there: Mapping[Key, R], new: Sequence[R], order: Sequence[Key]) -> list[R]:
    """The rows that are there and the new ones, which take the place of those, in this order; others last."""
    places = {key: place for place, key in enumerate(order)}
    rows = {**there, **{row.key: row for row in new}}
    return sorted(rows.values(), key=lambda row: places.get(row.key, len(places)))
