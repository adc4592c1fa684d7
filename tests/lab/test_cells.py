"""Cells of scores: correct answers, hits and distances are counted, and scores are measured once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.cache import Cache
from lab.experiments.cells import Attack, Point, Row, Scored, Scores, score


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


def test_no_answer_hits_a_missing_target() -> None:
    frames = torch.zeros(2, 1, 2, 2)
    found = score(by_brightness, frames, frames, torch.tensor([0, 1]), None, 1, torch.Generator())
    assert not found.hit.any()


def scored(name: str, calls: list[str], correct: list[list[bool]], cache: Cache, settings: str = "a") -> Scored:
    def run() -> Scores:
        calls.append(name)
        shape = np.array(correct)
        curve = np.array([[1.0, 0.0], [0.5, 0.5]]) if name == "rounds" else np.zeros((0, 2))
        zeros = np.zeros(shape.shape[1])
        return Scores(shape, ~shape, zeros, zeros, curve)

    attack = Attack("network", "ours", name, name, name == "rounds", None)
    return Scored(attack, ("lab.chance:seeded",), run, settings, (), 1.0, 0, cache)


def test_a_row_has_the_mean_over_draws_and_the_pictures_that_survive_them_all() -> None:
    correct, zeros = np.array([[True, True, False], [True, False, False]]), np.zeros((2, 3), np.bool_)
    row = Attack("network", "ours", "pgd", "pgd", False, None).row(Scores(correct, zeros, np.ones(3), np.ones(3)))
    assert (row.accuracy, row.worst, row.n, row.repeats) == (0.5, 1 / 3, 3, 2)
    assert row.success is None
    assert row.found is None


def test_scores_are_measured_once_until_their_inputs_change(tmp_path: Path) -> None:
    calls, cache = list[str](), Cache(tmp_path)
    for settings in ("a", "a", "b"):
        tables = scored("rounds", calls, [[True, False]], cache, settings).cell.measure()
    assert calls == ["rounds", "rounds"]
    (row,), points = tables["rows"], tables["rounds"]
    assert isinstance(row, Row)
    assert row.found == 0.5
    first, second = Point("network", "ours", "rounds", 1, 1.0, 0.0), Point("network", "ours", "rounds", 2, 0.5, 0.5)
    assert points == [first, second]
