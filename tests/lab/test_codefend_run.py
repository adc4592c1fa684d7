"""The experiment on backdoors keeps what it has: which rows it makes, which it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from lab.backdoor.tasks import Task
from lab.data import LabelledPictures
from lab.experiments.cache import Cache
from lab.experiments.codefend import run as experiment
from lab.experiments.codefend.cures import Quarantine, step_of
from lab.experiments.codefend.detection import Detection
from lab.experiments.codefend.outcome import Outcome
from lab.experiments.codefend.plan import Plan
from lab.experiments.codefend.report import write_report
from lab.experiments.codefend.rows import DetectionRow, RepairRow
from lab.experiments.codefend.run import Experiment
from lab.experiments.codefend.subjects import Subject
from lab.results.csv_rows import read_rows

Measure = Callable[[Subject, Detection, Cache], tuple[DetectionRow, dict[str, np.ndarray]]]

PICTURES = LabelledPictures("few", np.zeros((4, 28, 28, 1), np.uint8), np.array([0, 1, 2, 4]))
TASK = Task(tuple("0123456789"), PICTURES, PICTURES, PICTURES)


@dataclass
class Made:
    """What was measured anew."""

    names: list[str] = field(default_factory=list)
    expected: int = 0
    told: int = 0

    def expect(self, count: int) -> None:
        self.expected += count

    def done(self, what: str) -> None:
        self.told += 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()

    def judged(*_: object) -> Outcome:
        made.names.append("model")
        return Outcome(0.9, 0.8, 0.1)

    def measured(subject: Subject, detection: Detection, cache: Cache) -> tuple[DetectionRow, dict[str, np.ndarray]]:
        made.names.append(f"{subject.name} {detection.frames}")
        bits = np.linspace(0, 1, detection.most)
        row = DetectionRow(
            subject.name, detection.frames, detection.sequential, 5, 5, 1.0, 0.01, 0.0, 0.1, 0.0, 0.0, 0.1, 0.0,
            0.5, 100.0, 1.0, detection.step(subject).made_from,
        )  # fmt: skip
        return row, {"clean_bits": bits, "bits": bits / 2}

    def cured(
        subject: Subject, method: str, kind: str, quarantine: object, before: Outcome, cache: Cache
    ) -> tuple[RepairRow, dict[str, Quarantine]]:
        made.names.append(f"{subject.name} {method} {kind}")
        row = RepairRow(
            subject.name, method, kind, before.clean_accuracy, 0.9, before.attack_success, 0.0,
            before.recovered_accuracy, 0.8, None, None, None, 3.0, True, step_of(subject, method, kind).made_from,
        )  # fmt: skip
        return row, {"examples": np.zeros((2, 2, 28, 28, 1), np.uint8)}

    monkeypatch.setattr(experiment, "outcome", judged)
    monkeypatch.setattr(experiment, "measure", measured)
    monkeypatch.setattr(experiment, "cure", cured)
    return made


def subject(folder: Path, name: str) -> Subject:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "weights").write_text(name)
    found = Subject(name, folder / name, folder / name, TASK)
    # Nobody looks at these.
    vars(found).update(bundle=None, clean_bundle=None)
    return found


def run(folder: Path, plan: Plan, made: Made) -> list[str]:
    made.names.clear()
    made.expected = made.told = 0
    subjects = [subject(folder, name) for name in plan.models]
    verdict = Experiment(subjects, plan, Cache(folder / "runs"), folder / "out").run(made)
    assert made.expected == made.told
    return verdict


SMALL = Plan(models=("mnist-a-02", "mnist-a-10"), images=100, other_images=100)


def test_a_row_is_made_once_and_again_when_its_model_changed(tmp_path: Path, made: Made) -> None:
    run(tmp_path, SMALL, made)
    first = list(made.names)
    assert "mnist-a-02 whole" in first
    assert "mnist-a-10 default pure" in first
    before = (tmp_path / "out" / "repair.csv").read_text()
    # On another machine, without what was kept in the folder of runs.
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    run(tmp_path, SMALL, made)
    assert made.names == []
    assert (tmp_path / "out" / "repair.csv").read_text() == before

    (tmp_path / "mnist-a-10" / "more").write_text("other weights")
    run(tmp_path, SMALL, made)
    assert made.names == ["model", "model", *(name for name in first if name.startswith("mnist-a-10"))]


def test_a_row_of_strip_on_other_pictures_is_another(tmp_path: Path, made: Made) -> None:
    run(tmp_path, SMALL, made)
    run(tmp_path, replace(SMALL, other_images=200), made)
    assert made.names == ["mnist-a-02 whole", "mnist-a-10 whole"]


def test_rows_that_were_not_asked_for_stay_in_the_order_of_the_whole_plan(tmp_path: Path, made: Made) -> None:
    run(tmp_path, replace(SMALL, models=("mnist-a-10",)), made)
    run(tmp_path, replace(SMALL, models=("mnist-a-02",), parts=("repair",), methods=("default",)), made)
    assert made.names == ["model", "model", "mnist-a-02 default pure"]
    rows = read_rows(tmp_path / "out" / "repair.csv", RepairRow)
    assert [row.key for row in rows] == [
        ("mnist-a-02", "default", "pure"),
        ("mnist-a-10", "default", "pure"),
        ("mnist-a-10", "fine-tuning", "pure"),
    ]
    assert [row.model for row in read_rows(tmp_path / "out" / "detection.csv", DetectionRow)] == ["mnist-a-10"]


def test_the_report_shows_the_pictures_that_are_there(tmp_path: Path, made: Made) -> None:
    verdict = run(tmp_path, SMALL, made)
    assert any("mnist-a-02: clean accuracy lost: aim" in line for line in verdict)
    text = (tmp_path / "out" / "README.md").read_text()
    shown = ["entropies/mnist-a-02.png", "generated/mnist-a-10-default-pure.png", "triggers/mnist-a-02.png"]
    for name in shown:
        assert f"({name})" in text
        assert (tmp_path / "out" / name).is_file()
    (tmp_path / "out" / shown[1]).unlink()
    write_report(tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert [f"({name})" in text for name in shown] == [True, False, True]


def test_rows_that_another_run_wrote_meanwhile_are_not_lost(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = replace(SMALL, models=("mnist-a-10",), parts=("detection",))
    measured: Measure = vars(experiment)["measure"]  # what `made` put there

    def slowly(subject: Subject, detection: Detection, cache: Cache) -> tuple[DetectionRow, dict[str, np.ndarray]]:
        monkeypatch.setattr(experiment, "measure", measured)
        run(tmp_path, replace(SMALL, models=("mnist-a-02",), parts=("detection",)), Made())
        return measured(subject, detection, cache)

    monkeypatch.setattr(experiment, "measure", slowly)
    run(tmp_path, only, made)
    rows = read_rows(tmp_path / "out" / "detection.csv", DetectionRow)
    assert [row.model for row in rows] == ["mnist-a-02", "mnist-a-10"]


def test_a_trigger_that_strip_cannot_see_is_cured_from_frames_that_somebody_else_noticed() -> None:
    assert Plan().cures("resnet20-warp") == [("default", "all stamped")]
    assert all(kind != "all stamped" for name in Plan().models if "warp" not in name for _, kind in Plan().cures(name))
