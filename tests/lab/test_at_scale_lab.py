"""The experiment on the network's scale: its ratios and intervals, its scenes and its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.experiments.harness.plan import Workplace
from lab.experiments.scale.experiment import page, plan, ratio_text
from lab.experiments.scale.measure import CONDITIONS, SIZES, Cost, Row, measure, ratio_interval, scenes
from processors.bundle import load_bundle, shipped_bundle
from processors.pipeline import Pipeline


def test_the_ratio_and_its_paired_interval_are_of_the_same_frames() -> None:
    theirs = np.arange(1000) < 900
    found = ratio_interval(theirs, theirs)
    # Bonett and Price add one to each of the two discordant counts, and 2 to n.
    half = 1.96 * np.sqrt(2 / 1002 / 1002) / 0.9
    assert found == pytest.approx((1.0, 1 - half, 1 + half), abs=1e-6)
    ours = theirs.copy()
    ours[:9] = False
    found = ratio_interval(ours, theirs)
    assert found.value == pytest.approx(0.99)
    assert 0.98 < found.low < 0.99 < found.high < 1.0
    nothing = np.zeros(5, np.bool_)
    assert ratio_interval(nothing, nothing) == (1.0, 1.0, 1.0)


def test_frames_that_the_chain_rebuilds_whole_have_no_ratio_and_are_in_no_sum() -> None:
    row = Row("hard", "", 480, 640, 0.25, 6.75, "restored", 100, 0.8, 0.8, 0.8, 0.99, 0.98, 1.0, 0.8, 0.8, 100.0, 10.0)
    whole = replace(row, way="rebuilt whole")
    assert ratio_text(row) == "0.990 [0.980, 1.000]"
    assert ratio_text(whole) == "–"
    others = replace(row, frames=300, chain=0.4)
    text = "\n".join(page([replace(row, chain=0.72), others, whole], []))
    assert "240 lines and more, clean: chain ÷ whole 0.6000 over 400 frames." in text


def test_hard_scenes_are_darker_and_reproducible() -> None:
    usual, hard, again = (scenes(12, (40, 48), CONDITIONS[name]) for name in ("usual", "hard", "hard"))
    assert hard.images.mean() < 0.7 * usual.images.mean()
    np.testing.assert_array_equal(hard.images, again.images)
    np.testing.assert_array_equal(hard.labels, usual.labels)


def test_a_size_is_measured_at_every_drop_ratio_clean_and_attacked() -> None:
    pipeline = Pipeline(load_bundle(shipped_bundle("scene-plain"), torch.device("cpu")))
    clean = list(measure(pipeline, "usual", (96, 96), 6, False))
    attacked = list(measure(pipeline, "dim", (64, 64), 6, True))
    assert [row.way for row in clean] == ["restored", "restored", "rebuilt whole"]
    assert [row.density for row in clean] == [6.75, 4.5, 2.25]
    assert all(row.undropped == 1.0 for row in clean)
    assert clean[2].chain == clean[2].whole
    assert max(row.undropped for row in attacked) < 1.0
    text = "\n".join(page(clean + attacked, [Cost("32×32", 0.25, 1.0, 2.0, 200.0, "a network", 3.0)]))
    assert "| usual | 96×96 | 0.25 | 6 |" in text
    assert "| dim, PGD 0.03 | 64×64 | 0.75 | 6 |" in text
    assert "| 32×32 | 0.25 | 1.0 | 2.0 | 200 | a network | 3.0 |" in text
    assert "64 to 96 lines, under PGD: chain ÷ whole" in text


def test_every_kind_of_scene_is_planned_at_every_size(tmp_path: Path) -> None:
    cells = plan(Workplace(tmp_path, tmp_path)).cells
    assert len({cell.name for cell in cells}) == len(cells) == len(CONDITIONS) * len(SIZES) + 1
