"""The plan of the experiment on backdoors: backdoored models, their detection and their repair."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from lab.backdoor.catalogue import MODELS
from lab.backdoor.files import stamped_pictures
from lab.backdoor.near_duplicates import load_split_task
from lab.backdoor.tasks import Task
from lab.backdoor.train import CLEAN_RESNET20, clean_bundle, shipped_models, train
from lab.cache import Arrays, digest
from lab.experiments.codefend import plots, quarantines
from lab.experiments.codefend.cameras import cameras
from lab.experiments.codefend.cures import FINE_TUNING, METHODS, Quarantine, cure
from lab.experiments.codefend.detection import Detection, measure
from lab.experiments.codefend.detectors import detectors
from lab.experiments.codefend.outcome import Outcome, outcome
from lab.experiments.codefend.plan import (
    ATTACKS,
    CATALOGUE,
    EVERY,
    FEW_CAMERAS,
    FLAGGED,
    IMPURE,
    KINDS,
    PATCHES,
    REPEATS,
    Budget,
)
from lab.experiments.codefend.report import write_report
from lab.experiments.codefend.rows import (
    CameraRow,
    DetectionRow,
    DetectorRow,
    ModelRow,
    RepairRow,
    SplittingRow,
    StillRow,
)
from lab.experiments.codefend.still import still
from lab.experiments.codefend.subjects import CLEAN_OF, Subject, load_subject
from lab.experiments.harness.cell import Cell, Tables
from lab.experiments.harness.plan import Plan, Workplace
from lab.provenance import made_by

NAME: Final = "codefend"
TABLES: Final = {
    "models": ModelRow, "detection": DetectionRow, "repair": RepairRow, "detectors": DetectorRow, "cameras": CameraRow,
    "splitting": SplittingRow, "still": StillRow,
}  # fmt: skip
_CODE: Final = "lab.experiments.codefend"
_TRAINING_SECONDS: Final = 600
_CURE_SECONDS: Final = {"paper": 3600, "Neural Cleanse": 1200}
"""Methods that take longer than `_USUAL_SECONDS`."""
_USUAL_SECONDS: Final = 180


def plan(place: Workplace, budget: Budget | None = None) -> Plan:
    """Return the plan: for each model its training, STRIP and repairs, quick ones first. Models with a patch come
    first."""
    store = place.store(NAME)
    laboratory = Laboratory(place, budget or Budget())
    every = [cell for name in laboratory.budget.models for cell in laboratory.cells(name)]
    return Plan(NAME, TABLES, tuple(every), store, lambda: write_report(store))


class Laboratory:
    """The backdoored models, loaded when the first cell is measured. Those that do not ship are trained then."""

    def __init__(self, place: Workplace, budget: Budget) -> None:
        self.place = place
        self.budget = budget
        self.cache = place.cache(NAME)
        self.work = place.runs / "backdoor"
        self.task = cache(self._task)
        self.subject = cache(self._subject)

    def cells(self, name: str) -> list[Cell]:
        """Return all cells of a model."""
        return [
            self._model(name),
            *(self._detection(name, each) for each in self.budget.detections(name)),
            self._detectors(name),
            self._cameras(name),
            *([self._still(name)] if name in ATTACKS else []),
            *(self._cure(name, method, kind) for method, kind in self.budget.cures(name)),
        ]

    def _model(self, name: str) -> Cell:
        def run() -> Tables:
            subject = self.subject(name)
            sick, clean = self._outcomes(name)
            plots.trigger(subject, self.place.store(NAME).folder)
            poisoning = subject.poisoning
            return {
                "models": [
                    ModelRow(
                        model=name,
                        data=MODELS[name].data,
                        network=subject.architecture,
                        trigger="patch" if name in (*PATCHES, *REPEATS) else (KINDS | CATALOGUE).get(name, "other"),
                        rate=poisoning.rate,
                        target=poisoning.target,
                        clean_accuracy=sick.clean_accuracy,
                        attack_success=sick.attack_success,
                        floor=clean.attack_success,
                        clean_network=clean.clean_accuracy,
                        recovered=sick.recovered_accuracy,
                    )
                ]
            }

        seconds = 30 if self._ships(name) else _TRAINING_SECONDS
        return self._cell(name, "model", (f"{_CODE}.outcome:outcome",), run, (), seconds)

    def _detection(self, name: str, detection: Detection) -> Cell:
        def run() -> Tables:
            row, found = measure(self.subject(name), detection, self.cache)
            if not detection.ratio and not detection.sequential:
                clean, stamped = (found[each].astype(np.float64) for each in ("clean_bits", "bits"))
                plots.entropies(name, clean, stamped, row.threshold_bits, self.place.store(NAME).folder)
            return {"detection": [row]}

        key = f"strip/{detection.frames}{', sequential' if detection.sequential else ''}"
        return self._cell(name, key, (f"{_CODE}.detection:measure",), run, detection, 120)

    def _detectors(self, name: str) -> Cell:
        def run() -> Tables:
            return {"detectors": detectors(self.subject(name), self.budget.scores, self.cache)}

        code = (f"{_CODE}.detectors:detectors",)
        return self._cell(name, "detectors/whole", code, run, self.budget.scores, 300)

    def _cameras(self, name: str) -> Cell:
        def run() -> Tables:
            return cameras(self.subject(name), self.budget.scores, self.cache)._asdict()

        # The scores are those of the detectors.
        code = (f"{_CODE}.cameras:cameras",)
        return self._cell(name, "cameras/whole", code, run, self.budget.scores, 60)

    def _still(self, name: str) -> Cell:
        def run() -> Tables:
            return {"still": still(self.subject(name), self.budget.scenes, self.cache)}

        return self._cell(name, "still/whole", (f"{_CODE}.still:still",), run, self.budget.scenes, 420)

    def _cure(self, name: str, method: str, kind: str) -> Cell:
        def run() -> Tables:
            subject, before = self.subject(name), self._outcomes(name)[0]
            row, found = cure(subject, method, kind, quarantine(subject, kind), before, self.cache)
            if "examples" in found:
                plots.generated(row.key, found["examples"].astype(np.uint8), self.place.store(NAME).folder)
            return {"repair": [row]}

        by = METHODS.get(method)
        own = () if by is None or by.__qualname__ != by.__name__ else (f"{by.__module__}:{by.__name__}",)
        tuned = (f"{_CODE}.cures:fine_tunings", f"{_CODE}.cures:best_fine_tuning") if method == FINE_TUNING else ()
        code = (*own, *tuned) or (f"{_CODE}.cures:by_repair",)
        code = (*code, f"{__name__}:quarantine", f"{_CODE}.outcome:outcome")
        return self._cell(name, f"{method}/{kind}", code, run, (), _CURE_SECONDS.get(method, _USUAL_SECONDS))

    def _cell(
        self, name: str, key: str, code: tuple[str, ...], run: Callable[[], Tables], settings: object, seconds: float
    ) -> Cell:
        architecture, ships = MODELS[name].architecture, self._ships(name)
        clean = CLEAN_OF[architecture]
        folders = [shipped_models() / each / "bundle" for each in ((name, clean) if ships else (clean,))]
        files = [
            clean_bundle(clean, self.work) if each.parent.name == CLEAN_RESNET20 else each for each in folders
        ]  # fmt: skip
        trained = () if ships else ("lab.backdoor.train:train",)
        parted = ("lab.backdoor.near_duplicates:split_by_sign",) if MODELS[name].data == "gtsrb" else ()
        made = (f"{_CODE}.subjects:Subject", "lab.backdoor.tasks:load_task", *parted, *trained)
        inputs = (*files, self.place.data_set(MODELS[name].data))
        return Cell(f"{name}/{key}", (*code, *made), run, (MODELS[name].poisoning, settings), inputs, seconds)

    def _ships(self, name: str) -> bool:
        return (shipped_models() / name / "bundle").is_dir()

    def _task(self, data: str) -> Task:
        return load_split_task(data, self.place.needed_data())

    def _subject(self, name: str) -> Subject:
        task, folder = self.task(MODELS[name].data), self._folder(name)
        if not self._ships(name):
            # An earlier bundle may be of another recipe or poisoning; the checkpoint is not.
            train(name, MODELS[name], task, self.work)
        return load_subject(name, folder, shipped_models(), task)

    def _folder(self, name: str) -> Path:
        return (shipped_models() if self._ships(name) else self.work) / name / "bundle"

    def _outcomes(self, name: str) -> tuple[Outcome, Outcome]:
        """Return the outcomes of the backdoored and of the clean network."""
        subject = self.subject(name)
        state = digest(subject.state, made_by(f"{_CODE}.outcome:outcome"))

        def judge() -> Arrays:
            sick, clean = (
                outcome(each, subject.task.test, subject.stamped, subject.poisoning)
                for each in (subject.bundle, subject.clean_bundle)
            )
            return {"sick": np.array(sick), "clean": np.array(clean)}

        found = self.cache.get(f"models/{name}", state, judge)
        return Outcome(*found["sick"].astype(float).tolist()), Outcome(*found["clean"].astype(float).tolist())


def quarantine(subject: Subject, kind: str) -> Callable[[], Quarantine]:
    """Return the flagged frames of a kind: (M, H, W, C) uint8."""
    task, poisoning = subject.task, subject.poisoning
    if kind in IMPURE:
        return lambda: quarantines.impure(task, poisoning, subject.bundle, IMPURE[kind])
    if kind == FLAGGED:
        return lambda: quarantines.flagged(task, poisoning, subject.bundle)
    if kind == EVERY:
        seen = task.stream.take(np.flatnonzero(poisoning.attacks(task.stream.labels)))
        return lambda: stamped_pictures(seen, poisoning, first_key=2 * 10**6).images
    if kind == FEW_CAMERAS:
        return lambda: quarantines.few_cameras(task, poisoning)
    return lambda: quarantines.pure(task, poisoning, subject.bundle)
