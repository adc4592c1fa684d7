"""The rows of AI-GAN: a success is a picture that is classified as its target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lab.aigan.shipping import SETTINGS
from lab.cache import Arrays
from lab.experiments.aigan import experiment
from lab.experiments.aigan.defences import NOTHING
from lab.experiments.aigan.rows import SuccessRow
from lab.experiments.aigan.run import Attacked, rows_of
from lab.experiments.harness.cell import Tables
from lab.experiments.harness.plan import Workplace

LABELS = np.array([0, 0, 1, 1])
TARGETS = np.array([1, 2, 0, 2])


def rows(defence: str = NOTHING) -> list[SuccessRow]:
    seen = {"clean": np.array([0, 0, 1, 2]), "attacked": np.array([1, 0, 0, 2])}
    return list(rows_of("mnist", "white-box", "AI-GAN", 0.3, defence, seen, TARGETS, LABELS))


def test_a_success_is_a_picture_classified_as_its_target_and_every_target_has_a_row() -> None:
    whole, *by_class = rows()
    assert (whole.target, whole.hits, whole.images, whole.share) == (-1, 3, 4, 0.75)
    assert whole.low < 0.75 < whole.high
    assert (whole.accuracy, whole.clean) == (0.25, 0.75)
    assert [(row.target, row.hits, row.images) for row in by_class] == [(0, 1, 1), (1, 1, 1), (2, 1, 2)]
    assert [row.target for row in rows("drop and reconstruction")] == [-1]


@pytest.mark.parametrize("changed", ["data", "generator"])
def test_verdicts_on_other_pictures_or_of_another_generator_are_not_reused(
    changed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, data = tmp_path / "generator", tmp_path / "mnist.npz"
    home.mkdir()
    for file in (data, home / SETTINGS):
        file.write_text("as before")

    def verdicts(task: Attacked) -> Tables:
        made.append(task.cache.get("verdicts", "a state without pictures", lambda: {"class": np.array(len(made))}))
        return {}

    made: list[Arrays] = []
    monkeypatch.setattr(experiment, "home_of", lambda task, black_box: home)
    monkeypatch.setattr(Attacked, "by_gradients", verdicts)

    def measure() -> int:
        cells = experiment.plan(Workplace(tmp_path, tmp_path / "runs", tmp_path)).cells
        next(each for each in cells if each.name == "mnist/gradients").measure()
        return int(made[-1]["class"])

    assert measure() == measure() == 0
    (data if changed == "data" else home / SETTINGS).write_text("changed")
    assert measure() == 2
