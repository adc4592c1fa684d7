"""The plan of the experiment on backdoors, and its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lab.backdoor.tasks import Task
from lab.data import LabelledPictures
from lab.experiments.codefend import experiment
from lab.experiments.codefend.plan import CATALOGUE, Budget
from lab.experiments.codefend.scores import Numbers
from lab.experiments.codefend.subjects import Subject
from lab.experiments.harness.plan import Plan, Workplace

PICTURES = LabelledPictures("few", np.zeros((4, 28, 28, 1), np.uint8), np.array([0, 1, 2, 4]))
TASK = Task(tuple("0123456789"), PICTURES, PICTURES, PICTURES)
SMALL = Budget(models=("mnist-a-02", "mnist-a-10"), images=100, other_images=100)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plan:
    """Return a plan for two models without loading them."""

    def loaded(name: str, folder: Path, work: Path, task: Task) -> Subject:
        found = Subject(name, folder, folder, task)
        vars(found).update(bundle=None, clean_bundle=None, state=name)
        return found

    monkeypatch.setattr(experiment, "load_split_task", lambda name, data: TASK)
    monkeypatch.setattr(experiment, "load_subject", loaded)
    return experiment.plan(Workplace(tmp_path / "out", tmp_path / "runs", tmp_path), SMALL)


def test_a_model_has_a_row_and_further_rows_for_each_detection_and_cure(plan: Plan) -> None:
    assert [cell.name for cell in plan.cells if cell.name.startswith("mnist-a-02")] == [
        "mnist-a-02/model", "mnist-a-02/strip/whole", "mnist-a-02/detectors/whole", "mnist-a-02/cameras/whole",
        "mnist-a-02/default/pure", "mnist-a-02/fine-tuning/pure",
    ]  # fmt: skip


def test_strip_on_other_pictures_is_another_row(plan: Plan, tmp_path: Path) -> None:
    other = experiment.plan(
        Workplace(tmp_path, tmp_path, tmp_path), Budget(models=SMALL.models, other_images=200, scores=Numbers(50, 50))
    )
    states = {cell.name: cell.input_state for cell in plan.cells}
    changed = {cell.name for cell in other.cells if cell.input_state != states[cell.name]}
    measured = ("strip", "detectors", "cameras")
    assert changed == {f"mnist-a-{rate}/{what}/whole" for rate in ("02", "10") for what in measured}


def test_a_model_that_does_not_ship_is_trained_even_if_its_folder_has_a_bundle(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained: list[tuple[str, Path]] = []
    monkeypatch.setattr(experiment, "train", lambda name, model, task, work: trained.append((name, work)))
    place, name = Workplace(tmp_path / "out", tmp_path / "runs", tmp_path), "mnist-a-1-seed-1"
    settings = place.runs / "backdoor" / name / "bundle" / "model.toml"
    settings.parent.mkdir(parents=True)
    settings.touch()
    subjects = experiment.Laboratory(place, SMALL)
    subjects.subject(name)
    subjects.subject("mnist-a-02")
    assert trained == [(name, place.runs / "backdoor")]


def test_cures_of_triggers_that_strip_misses_use_frames_that_all_statistics_flag() -> None:
    for name in ("resnet20-warp", "resnet20-source", *CATALOGUE):
        ours = "quarantine" if name == "resnet20-all-to-all" else "default"
        assert Budget().cures(name)[0] == (ours, "flagged")
    # The compared methods use only clean pictures for the warp.
    assert {method for name in Budget().models for method, kind in Budget().cures(name) if kind == "all stamped"} == {
        "clean", "ft-sam", "i-bau", "anp", "npd"
    }  # fmt: skip
