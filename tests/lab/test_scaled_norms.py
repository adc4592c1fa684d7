"""Scaled batch norms: which are amplified, how many, and the doubt in labels that amplification does not keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lab.data import to_frames
from lab.strip.scaled_norms import SCALE, amplified, batch_norms, depth, doubts, label_odds
from processors.pipeline import Pipeline
from tests.lab.frail_judge import frail_bundle, pictures


def test_the_last_batch_norms_are_amplified_in_a_copy() -> None:
    bundle = frail_bundle()
    (before,) = batch_norms(bundle.network)
    weight, bias = before.weight.clone(), before.bias.clone()
    (after,) = batch_norms(amplified(bundle, 1).network)
    torch.testing.assert_close(after.weight, SCALE * weight)
    torch.testing.assert_close(after.bias, SCALE * bias)
    torch.testing.assert_close(before.weight, weight)
    assert batch_norms(lambda x: x) == []
    assert batch_norms(nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(3, affine=False)))[0].num_features == 2


def test_the_odds_of_a_certain_label_do_not_overflow() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [1000.0, 0.0, 0.0], [0.0, 1000.0, 0.0]])
    found = label_odds(logits, torch.tensor([0, 0, 0]))
    assert found.tolist() == pytest.approx([-1.0, 1000 / np.log(2) - 1, -1000 / np.log(2)], rel=1e-5)


def test_the_depth_is_the_first_that_spoils_most_clean_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, clean = frail_bundle(), pictures(40, 5)
    assert depth(bundle, clean) == 1
    monkeypatch.setattr("lab.strip.scaled_norms.ERRED", 0.0)
    assert depth(bundle, clean) == 1


def test_a_label_that_amplification_keeps_has_less_doubt() -> None:
    pipeline, clean = Pipeline(frail_bundle()), pictures(60, 5)
    found = doubts(pipeline, clean, 1)
    assert found.shape == (60,)
    assert bool((found > 0).all())
    with torch.inference_mode():
        frames = to_frames(clean.images, torch.device("cpu"))
        labels = pipeline.bundle.logits(frames).argmax(1)
        odds = label_odds(amplified(pipeline.bundle, 1).logits(frames), labels).numpy()
    np.testing.assert_array_equal(np.argsort(found, kind="stable"), np.argsort(-odds, kind="stable"))
