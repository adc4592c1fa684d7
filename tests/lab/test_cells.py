"""Cells of the papers' tables: what is counted, and that a run which was stopped goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.experiments.cache import Cache
from lab.experiments.cells import Cell, Point, Row, Scores, measure, score
from lab.results.csv_rows import read_rows

SEED = 3


class Told:
    """Counts the steps."""

    def __init__(self) -> None:
        self.expected, self.said = 0, list[str]()

    def expect(self, count: int) -> None:
        self.expected += count

    def done(self, what: str) -> None:
        self.said.append(what)


def by_brightness(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Class 1 for frames whose mean lies above a half, else class 0."""
    bright = frames.mean((1, 2, 3))
    return torch.stack((1 - bright, bright), 1)


def test_answers_and_distances_are_counted_picture_by_picture() -> None:
    clean = torch.zeros(3, 1, 2, 2)
    attacked = clean.clone()
    attacked[1] += 1.0
    attacked[2, 0, 0, 0] = 0.5
    labels = torch.tensor([0, 0, 1])
    found = score(by_brightness, attacked, clean, labels, 1 - labels, 2, torch.Generator())
    assert found.correct.tolist() == [[True, False, False]] * 2
    assert found.hit.tolist() == [[False, True, True]] * 2
    assert found.l_inf.tolist() == [0.0, 1.0, 0.5]
    np.testing.assert_allclose(found.rms, [0.0, 1.0, 0.25])


def test_no_answer_hits_a_target_that_was_not_given() -> None:
    frames = torch.zeros(2, 1, 2, 2)
    found = score(by_brightness, frames, frames, torch.tensor([0, 1]), None, 1, torch.Generator())
    assert not found.hit.any()


def cell(name: str, calls: list[str], correct: list[list[bool]], made_from: str = "a") -> Cell:
    def run() -> Scores:
        calls.append(name)
        shape = np.array(correct)
        curve = np.array([[1.0, 0.0], [0.5, 0.5]]) if name == "rounds" else np.zeros((0, 2))
        zeros = np.zeros(shape.shape[1])
        return Scores(shape, ~shape, zeros, zeros, curve)

    return Cell("judge", "ours", name, name, name == "rounds", None, made_from, run)


def test_a_row_has_the_mean_over_draws_and_the_pictures_that_survive_them_all(tmp_path: Path) -> None:
    row = cell("pgd", [], [[True, True, False], [True, False, False]]).row(
        Scores(
            np.array([[True, True, False], [True, False, False]]), np.zeros((2, 3), np.bool_), np.ones(3), np.ones(3)
        )
    )
    assert (row.accuracy, row.worst, row.n, row.repeats) == (0.5, 1 / 3, 3, 2)
    assert row.success is None
    assert row.found is None


def test_what_was_measured_is_not_measured_again_until_what_it_was_made_from_changes(tmp_path: Path) -> None:
    calls = list[str]()
    cells = [cell("clean", calls, [[True, True]]), cell("rounds", calls, [[True, False]])]
    cache, file, curves = Cache(tmp_path / "runs"), tmp_path / "rows.csv", tmp_path / "curves.csv"
    first = measure(cells[:1], cache, file, Told(), curves)
    told = Told()
    rows = measure(cells, cache, file, told, curves)
    assert calls == ["clean", "rounds"]
    assert rows[:1] == first
    assert told.expected == len(told.said) == 2
    assert [row.attack for row in read_rows(file, Row)] == ["clean", "rounds"]
    assert rows[1].found == 0.5
    assert [(point.round, point.accuracy, point.found) for point in read_rows(curves, Point)] == [
        (1, 1.0, 0.0),
        (2, 0.5, 0.5),
    ]
    measure([replace(cells[0], made_from="b")], cache, file, Told())
    assert calls == ["clean", "rounds", "clean"]
