"""Scaled batch norms: which are amplified, how many, and the doubt in labels that amplification does not keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lab.data import to_frames
from lab.strip.scaled_norms import SCALE, amplified, batch_norms, depth, doubts, label_odds
from processors.bundle import Bundle
from processors.pipeline import Pipeline
from tests.lab.frail_judge import frail_bundle, pictures


def test_the_last_batch_norms_are_amplified_in_a_copy() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(4), nn.BatchNorm2d(5))
    network.requires_grad_(False)
    for norm in batch_norms(network):
        norm.bias.add_(1)
    changed = amplified(replace(frail_bundle(), network=network), 2).network
    assert [float(each.weight[0]) for each in batch_norms(changed)] == [1, SCALE, SCALE]
    assert [float(each.bias[0]) for each in batch_norms(changed)] == [1, SCALE, SCALE]
    assert [float(each.weight[0]) for each in batch_norms(network)] == [1, 1, 1]
    assert batch_norms(lambda x: x) == []


def test_the_odds_of_a_certain_label_do_not_overflow() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [1000.0, 0.0, 0.0], [0.0, 1000.0, 0.0]])
    found = label_odds(logits, torch.tensor([0, 0, 0]))
    assert found.tolist() == pytest.approx([-1.0, 1000 / np.log(2) - 1, -1000 / np.log(2)], rel=1e-5)


def test_the_depth_is_the_first_that_spoils_most_clean_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, clean = frail_bundle(), pictures(40, 5)

    def spoilt(bundle: Bundle, count: int) -> Bundle:
        return replace(bundle, network=lambda x: frail_bundle().network(x) * (1 if count < spoils else -1))

    monkeypatch.setattr("lab.strip.scaled_norms.batch_norms", lambda network: [nn.BatchNorm2d(1)] * 5)
    monkeypatch.setattr("lab.strip.scaled_norms.amplified", spoilt)
    for spoils in (1, 3, 5):
        assert depth(bundle, clean) == spoils
    spoils = 9
    assert depth(bundle, clean) == 5
    monkeypatch.setattr("lab.strip.scaled_norms.batch_norms", lambda network: [])
    assert depth(bundle, clean) is None


def test_a_label_that_amplification_keeps_has_less_doubt() -> None:
    pipeline, clean = Pipeline(frail_bundle()), pictures(60, 5)
    found = doubts(pipeline, clean, 1)
    assert found.shape == (60,)
    assert bool((found > 0).all())
    with torch.inference_mode():
        frames = to_frames(clean.images, torch.device("cpu"))
        labels = pipeline.bundle.logits(frames).argmax(1)
        odds = label_odds(amplified(pipeline.bundle, 1).logits(frames), labels).numpy()
    np.testing.assert_allclose(np.argsort(np.argsort(found)), np.argsort(np.argsort(-odds)), atol=2)
