"""Candidates for each goal of the attacker: the choice among them, and what further showings add."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lab.cache import Arrays, Cache
from lab.data import to_frames
from lab.experiments.hardening import candidates
from lab.experiments.hardening.candidates import measured, promising
from lab.experiments.hardening.paired import Setting, unpacked
from lab.experiments.hardening.paired_report import paired_page
from processors.bundle import Bundle, load_bundle
from tests.lab.colour_classifier import coloured_pictures, write_bundle

CPU = torch.device("cpu")
EPS = 0.02
FIELDS = ("once", "ten", "hundred", "each_once", "each_ten")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_bundle(write_bundle(tmp_path / "colours"), CPU)


def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("STEPS", 6), ("SAMPLES", {"bare": 1, "fleet": 2}), ("ESTIMATES", 3), ("SHOWINGS", 12)):
        monkeypatch.setattr(candidates, name, value)


def test_the_attacker_chooses_the_candidate_that_succeeds_most_often(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first candidate has the largest mean margin; the second one succeeds in two of three draws.
    drawn = iter([5.0, -1.0, -1.0, 0.1, 0.1, -1.0, -1.0, -1.0, 0.5])

    def attacked(frames: Tensor, chance: torch.Generator) -> Tensor:
        return torch.tensor([[0.0, next(drawn)]])

    made = torch.zeros(3, 1, 3, 2, 2)
    monkeypatch.setattr(candidates, "ESTIMATES", 3)
    assert promising(attacked, made, torch.zeros(1, dtype=torch.int64), torch.Generator()).tolist() == [1]


def test_each_goal_has_a_candidate_within_the_bound(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    few_steps(monkeypatch)
    pictures = coloured_pictures(4, lead=6)
    frames, labels = to_frames(pictures.images, CPU), torch.from_numpy(pictures.labels)

    def bare(given: Tensor, chance: torch.Generator) -> Tensor:
        return bundle.logits(bundle.prepare(given))

    made = candidates.candidates(bare, frames, labels, 3, EPS, 1, torch.Generator().manual_seed(0))
    assert made.shape == (3, *frames.shape)
    assert (made - frames).abs().max() <= EPS + 1e-6
    reached = torch.stack([bundle.logits(bundle.prepare(each)).argmax(1) for each in made])
    assert torch.equal(reached[1:], torch.stack([(labels + step) % 3 for step in (1, 2)]))
    assert not (reached[0] == labels).any()


def test_more_showings_and_more_candidates_leave_no_more_pictures_right_and_a_run_resumes(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_steps(monkeypatch)
    monkeypatch.setattr(candidates, "CHUNK", 5)
    pictures = coloured_pictures(8, lead=3)
    wrong = pictures.labels.copy()
    wrong[0] = (wrong[0] + 1) % 3
    pictures = type(pictures)(pictures.name, pictures.images, wrong)
    cache = Cache(tmp_path / "runs")
    setting = Setting("colours", 0.004, "fleet", candidates.ATTACK)
    paired, found = measured(setting, bundle, pictures, cache)
    left = {name: unpacked(getattr(found, name), 8) for name in FIELDS}
    assert (found.pictures, found.candidates) == (8, 3)
    assert not any(each[0] for each in left.values())
    assert (paired.once, paired.always, paired.submissions) == (found.each_once, found.each_ten, 10)
    assert not unpacked(paired.bare, 8)[0]
    for more, fewer in (("ten", "once"), ("hundred", "ten"), ("each_ten", "each_once")):
        assert not (left[more] & ~left[fewer]).any()
    page = "\n".join(paired_page([], [], [found], [], "the command"))
    assert "## Shown again, or another candidate" in page

    def never(*arguments: object) -> Arrays:
        raise AssertionError

    monkeypatch.setattr(candidates, "judged", never)
    assert measured(setting, bundle, pictures, cache) == (paired, found)


def test_a_stubborn_picture_stays_right_at_all_showings(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    few_steps(monkeypatch)
    for side in ("bare", "fleet"):
        setting = Setting("colours", 0.004, side, candidates.ATTACK)
        found = candidates.judged(setting, bundle, coloured_pictures(3, lead=60), 0)
        shapes = {"bare": (3, 3), "each": (3, 10, 3), "chosen": (12, 3)}
        assert {name: found[name].shape for name in shapes} == shapes
        assert all(np.all(found[name]) for name in shapes)


def test_a_picture_that_is_never_right_without_an_attack_counts_as_wrong(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_steps(monkeypatch)
    pictures, calls = coloured_pictures(3, lead=60), list[int]()

    def lucky_later(_judged: object, frames: Tensor, times: int, _chance: object) -> Tensor:
        """Return the first picture's class only after the first call, which has no attack."""
        calls.append(times)
        right = torch.from_numpy(pictures.labels).expand(times, -1).clone()
        right[:, 0] += len(calls) == 1
        return right

    monkeypatch.setattr(candidates, "answers", lucky_later)
    found = candidates.judged(Setting("colours", 0.004, "fleet", candidates.ATTACK), bundle, pictures, 0)
    for name in ("bare", "each", "chosen"):
        assert not found[name][..., 0].any()
        assert found[name][..., 1:].all()
