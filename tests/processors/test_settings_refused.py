"""Contradictory settings and inputs of the processors' parts, each rejected with a message."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from processors.bundle.strip_table import StripThreshold
from processors.device.backends.int8 import _range
from processors.results import preview
from processors.results.preview import preview_jpeg
from processors.stages.preprocess.grid_distortion import GridDistortion, _run
from processors.stages.preprocess.registry import read_stage
from processors.stages.stillness import Sample, change_between
from schemas.errors import StageError


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"accept_after": [1]}, "expected as many accept_bits as accept_after, got 0 for 1"),
        ({"statistic": "odds"}, "usual_odds_bits: expected one number a class with the statistic odds"),
        ({"usual_odds_bits": [1.0]}, "usual_odds_bits: expected one number a class with the statistic odds"),
        (
            {"statistic": "odds", "usual_odds_bits": [1.0], "accept_statistic": "joint"},
            "accept_statistic: expected none with the statistic odds",
        ),
        (
            {"accept_after": [4, 2], "accept_bits": [1.0, 1.0]},
            r"accept_after: expected ascending .*, got \[4, 2\]",
        ),
        ({"accept_after": [2], "accept_bits": [0.1]}, "accept_bits: expected at least threshold_bits, got 0.1"),
    ],
)
def test_a_contradictory_strip_table_is_rejected(changed: dict[str, Any], message: str) -> None:
    StripThreshold.model_validate({"threshold_bits": 0.5, "frr": 0.01})
    with pytest.raises(ValueError, match=message):
        StripThreshold.model_validate({"threshold_bits": 0.5, "frr": 0.01} | changed)


def test_parsed_settings_of_a_stage_are_returned_unchanged() -> None:
    settings = GridDistortion(stage="grid-distortion")
    assert read_stage(settings) is settings
    assert read_stage({"stage": "grid-distortion"}) == settings
    with pytest.raises(ValueError, match=r"stage: expected one of .*grid-distortion.*, got 'blur'"):
        read_stage("blur")


def test_a_random_stage_needs_a_seed_for_each_picture() -> None:
    with pytest.raises(StageError, match=r"^grid-distortion: expected a seed for each picture, got none$"):
        _run(0.15, 8, torch.zeros(1, 3, 8, 8), None)


def test_frames_with_few_common_pixels_have_no_change() -> None:
    pixels = np.arange(64, dtype=np.uint8)
    all_sent, few_sent = np.full(8, 255, np.uint8), np.array([1] + [0] * 7, np.uint8)
    whole = Sample((8, 8), pixels, all_sent)
    assert change_between(whole, Sample((8, 8), pixels + 2, all_sent)) == 2.0
    assert change_between(whole, Sample((8, 8), pixels, few_sent)) is None


def test_a_preview_has_the_best_quality_that_fits_or_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sizes = [len(preview_jpeg(noise, most)) for most in (85, 60, 30)]
    assert sizes == sorted(sizes, reverse=True)
    monkeypatch.setattr(preview, "MAX_PREVIEW_BYTES", sizes[1])
    assert len(preview_jpeg(noise)) == sizes[1]
    monkeypatch.setattr(preview, "MAX_PREVIEW_BYTES", 10)
    assert preview_jpeg(noise) == b""


@pytest.mark.parametrize(("low", "high", "found"), [(0.0, 0.0, (0.0, 1.0)), (0.5, 2.0, (0.0, 2.0))])
def test_activations_without_negative_values_have_a_range_from_zero(
    low: float, high: float, found: tuple[float, float]
) -> None:
    assert _range(low, high) == found


def test_a_range_with_negative_values_has_zero_as_one_of_its_steps() -> None:
    low, high = _range(-1.0, 0.5)
    assert low <= -1.0 <= 0.5 <= high
    assert (0 - low) / (high - low) * 255 == pytest.approx(round((0 - low) / (high - low) * 255), abs=1e-9)
