"""The experiment on the network's scale: its ratios, its scenes and its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lab.restoration import at_scale
from lab.restoration.at_scale import Row, measure, ratio_interval, scenes
from lab.results.csv_rows import read_rows, write_rows
from processors.bundle import load_bundle, shipped_bundle
from processors.pipeline import Pipeline


def test_the_ratio_is_of_the_same_frames_and_its_interval_is_the_paired_one() -> None:
    theirs = np.arange(1000) < 900
    found = ratio_interval(theirs, theirs)
    assert found == (1.0, 1.0, 1.0)
    ours = theirs.copy()
    ours[:9] = False
    found = ratio_interval(ours, theirs)
    assert found.value == pytest.approx(0.99)
    assert 0.98 < found.low < 0.99 < found.high < 1.0
    nothing = np.zeros(5, np.bool_)
    assert ratio_interval(nothing, nothing) == (1.0, 1.0, 1.0)


def test_hard_scenes_are_darker_and_the_same_every_time() -> None:
    usual, hard, again = (scenes(12, (40, 48), at_scale.CONDITIONS[name]) for name in ("usual", "hard", "hard"))
    assert hard.images.mean() < 0.7 * usual.images.mean()
    np.testing.assert_array_equal(hard.images, again.images)
    np.testing.assert_array_equal(hard.labels, usual.labels)


def test_a_size_is_measured_at_every_ratio_clean_and_attacked(tmp_path: Path) -> None:
    pipeline = Pipeline(load_bundle(shipped_bundle("scene-plain"), torch.device("cpu")))
    clean = list(measure(pipeline, "usual", (96, 96), 6, False))
    attacked = list(measure(pipeline, "dim", (64, 64), 6, True))
    assert [row.way for row in clean] == ["restored", "restored", "rebuilt whole"]
    assert [row.density for row in clean] == [6.75, 4.5, 2.25]
    assert all(row.undropped == 1.0 for row in clean)
    assert clean[2].chain == clean[2].whole
    assert max(row.undropped for row in attacked) < 1.0
    write_rows(tmp_path / "rows.csv", clean + attacked, Row)
    assert len(read_rows(tmp_path / "rows.csv", Row)) == 6
