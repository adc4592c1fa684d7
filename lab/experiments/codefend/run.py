"""The experiment from the sick models to the report; every step is kept, so that a run goes on where one stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from lab.backdoor.catalogue import MODELS
from lab.experiments.cache import Arrays, Cache, digest
from lab.experiments.codefend import plots, quarantines
from lab.experiments.codefend.cures import Quarantine, cure
from lab.experiments.codefend.detection import measure
from lab.experiments.codefend.outcome import Outcome, outcome
from lab.experiments.codefend.plan import FEW_CAMERAS, IMPURE, KINDS, PATCHES, Plan
from lab.experiments.codefend.report import SETTINGS, write_report
from lab.experiments.codefend.rows import DetectionRow, ModelRow, RepairRow
from lab.experiments.codefend.subjects import Subject
from lab.experiments.csv_rows import write_rows

PARTS = ("detection", "repair")


class Steps(Protocol):
    """Who is told how far it is."""

    def expect(self, count: int) -> None:
        """So many steps more."""
        ...

    def done(self, what: str) -> None:
        """One of them."""
        ...


@dataclass(frozen=True)
class Experiment:
    """Sick models, what to do with them, and where results go."""

    subjects: list[Subject]
    plan: Plan
    cache: Cache
    out: Path
    command: str

    def run(self, steps: Steps) -> list[str]:
        """Do all of it, write CSV, Markdown and plots, and return a line for each figure asked for."""
        self._announce(steps)
        models: list[ModelRow] = []
        detections: list[DetectionRow] = []
        repairs: list[RepairRow] = []
        entropies = []
        examples = []
        for subject in self.subjects:
            model, before = self._model(subject)
            models.append(model)
            steps.done(f"{subject.name}: clean accuracy {model.clean_accuracy:.4f}, ASR {model.attack_success:.4f}")
            if "detection" in self.plan.parts:
                for ratio, sequential, most in self.plan.detections(subject.name):
                    row, found = measure(subject, ratio, sequential, most, self.cache)
                    detections.append(row)
                    if not ratio and not sequential:
                        bits = [found[name].astype(np.float64) for name in ("clean_bits", "bits")]
                        entropies.append((subject.name, bits[0], bits[1], row.threshold_bits))
                    steps.done(f"{subject.name}: STRIP on {row.frames} frames: FRR {row.frr:.4f}, FAR {row.far:.4f}")
            if "repair" in self.plan.parts:
                for method, kind in self.plan.cures(subject.name):
                    result, pictures = cure(subject, method, kind, self._quarantine(subject, kind), before, self.cache)
                    repairs.append(result)
                    if "examples" in pictures:
                        examples.append((f"{subject.name}, {method}, {kind}", pictures["examples"].astype(np.uint8)))
                    steps.done(
                        f"{subject.name}: {method}, {kind}: ASR {result.success_after:.4f}, clean "
                        f"{result.clean_after:.4f}, recovered {result.recovered_after:.4f}, {result.seconds:.0f} s"
                    )
        self._write(models, detections, repairs)
        if entropies:
            plots.entropies(entropies, self.out / "entropies.png")
        if examples:
            plots.generated(examples, self.out / "generated.png")
        plots.triggers(self.subjects, self.out / "triggers.png")
        return write_report(self.out)

    def _announce(self, steps: Steps) -> None:
        for subject in self.subjects:
            steps.expect(1)
            if "detection" in self.plan.parts:
                steps.expect(len(self.plan.detections(subject.name)))
            if "repair" in self.plan.parts:
                steps.expect(len(self.plan.cures(subject.name)))

    def _model(self, subject: Subject) -> tuple[ModelRow, Outcome]:
        def run() -> Arrays:
            target = subject.poisoning.target
            sick = outcome(subject.bundle, subject.task.test, subject.stamped, target)
            clean = outcome(subject.clean_bundle, subject.task.test, subject.stamped, target)
            return {"sick": np.array(sick), "clean": np.array(clean)}

        found = self.cache.get(f"models/{subject.name}", digest(subject.state), run)
        sick, clean = (Outcome(*found[name].astype(float).tolist()) for name in ("sick", "clean"))
        poisoning = subject.poisoning
        row = ModelRow(
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
        )
        return row, sick

    def _quarantine(self, subject: Subject, kind: str) -> Callable[[], Quarantine]:
        task, poisoning = subject.task, subject.poisoning
        if kind in IMPURE:
            return lambda: quarantines.impure(task, poisoning, subject.bundle, IMPURE[kind])
        if kind == FEW_CAMERAS:
            return lambda: quarantines.few_cameras(task, poisoning)
        return lambda: quarantines.pure(task, poisoning, subject.bundle)

    def _write(self, models: list[ModelRow], detections: list[DetectionRow], repairs: list[RepairRow]) -> None:
        write_rows(self.out / "models.csv", models, ModelRow)
        if detections:
            write_rows(self.out / "detection.csv", detections, DetectionRow)
        if repairs:
            write_rows(self.out / "repair.csv", repairs, RepairRow)
        (self.out / SETTINGS).write_text(json.dumps({"command": self.command}, indent=2) + "\n", encoding="utf-8")
