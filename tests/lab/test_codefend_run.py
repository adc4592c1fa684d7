"""The plan of the experiment on backdoors: which rows it has, and what their measurement leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lab.backdoor.tasks import Task
from lab.data import LabelledPictures
from lab.experiments.cache import Cache
from lab.experiments.codefend import experiment
from lab.experiments.codefend.detection import Detection
from lab.experiments.codefend.outcome import Outcome
from lab.experiments.codefend.plan import Budget
from lab.experiments.codefend.rows import DetectionRow, RepairRow
from lab.experiments.codefend.subjects import Subject
from lab.experiments.harness.plan import Plan, Workplace

PICTURES = LabelledPictures("few", np.zeros((4, 28, 28, 1), np.uint8), np.array([0, 1, 2, 4]))
TASK = Task(tuple("0123456789"), PICTURES, PICTURES, PICTURES)
SMALL = Budget(models=("mnist-a-02", "mnist-a-10"), images=100, other_images=100)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plan:
    """Two models whose measurements are made up."""

    def loaded(name: str, folder: Path, work: Path, task: Task) -> Subject:
        found = Subject(name, folder, folder, task)
        vars(found).update(bundle=None, clean_bundle=None, state=name)
        return found

    def measured(subject: Subject, detection: Detection, cache: Cache) -> tuple[DetectionRow, dict[str, np.ndarray]]:
        bits = np.linspace(0, 1, detection.most)
        row = DetectionRow(
            subject.name, detection.frames, detection.sequential, 5, 5, 1.0, 0.01, 0.0, 0.1, 0.0, 0.0, 0.1, 0.0,
            0.5, 100.0, 1.0,
        )  # fmt: skip
        return row, {"clean_bits": bits, "bits": bits / 2}

    def cured(
        subject: Subject, method: str, kind: str, flagged: Callable[[], object], before: Outcome, cache: Cache
    ) -> tuple[RepairRow, dict[str, np.ndarray]]:
        row = RepairRow(
            subject.name, method, kind, before.clean_accuracy, 0.9, before.attack_success, 0.0,
            before.recovered_accuracy, 0.8, None, None, None, 3.0, True,
        )  # fmt: skip
        return row, {"examples": np.zeros((2, 2, 28, 28, 1), np.uint8)}

    monkeypatch.setattr(experiment, "load_task", lambda name, data: TASK)
    monkeypatch.setattr(experiment, "load_subject", loaded)
    monkeypatch.setattr(experiment, "outcome", lambda *_: Outcome(0.9, 0.8, 0.1))
    monkeypatch.setattr(experiment, "measure", measured)
    monkeypatch.setattr(experiment, "cure", cured)
    return experiment.plan(Workplace(tmp_path / "out", tmp_path / "runs", tmp_path), SMALL)


def test_a_model_has_its_own_row_and_one_for_each_detection_and_cure(plan: Plan) -> None:
    assert [cell.name for cell in plan.cells if cell.name.startswith("mnist-a-02")] == [
        "mnist-a-02/model", "mnist-a-02/strip/whole", "mnist-a-02/default/pure", "mnist-a-02/fine-tuning/pure",
    ]  # fmt: skip


def test_strip_on_other_pictures_is_another_row(plan: Plan, tmp_path: Path) -> None:
    other = experiment.plan(Workplace(tmp_path, tmp_path, tmp_path), Budget(models=SMALL.models, other_images=200))
    states = {cell.name: cell.input_state for cell in plan.cells}
    changed = {cell.name for cell in other.cells if cell.input_state != states[cell.name]}
    assert changed == {"mnist-a-02/strip/whole", "mnist-a-10/strip/whole"}


def test_a_trigger_that_strip_cannot_see_is_cured_from_frames_that_somebody_else_noticed() -> None:
    assert Budget().cures("resnet20-warp") == [("default", "all stamped")]
    others = [name for name in Budget().models if "warp" not in name]
    assert all(kind != "all stamped" for name in others for _, kind in Budget().cures(name))
