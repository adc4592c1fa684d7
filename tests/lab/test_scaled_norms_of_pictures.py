"""Scaled batch norms in the lab: the number of amplified norms, and the doubt in labels that change under them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.data import to_frames
from lab.strip.scaled_norms import depth, doubts
from processors.pipeline import Pipeline
from processors.stages.scaled_norms import ScaledNorms, amplified, label_odds
from tests.lab.nonrobust_network import nonrobust_bundle, pictures


def test_the_depth_is_the_smallest_that_changes_most_clean_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, clean = nonrobust_bundle(), pictures(40, 5)
    own = bundle.network

    def amplified_copy(network: nn.Module, count: int) -> Callable[[Tensor], Tensor]:
        assert network is own
        return lambda x: own(x) * (1 if count < true_depth else -1)

    monkeypatch.setattr("lab.strip.scaled_norms.batch_norms", lambda network: ["norm"] * 5)
    monkeypatch.setattr("lab.strip.scaled_norms.amplified", amplified_copy)
    for true_depth in (1, 3, 5):
        assert depth(bundle, clean) == true_depth
    true_depth = 9
    assert depth(bundle, clean) == 5
    monkeypatch.setattr("lab.strip.scaled_norms.batch_norms", lambda network: [])
    assert depth(bundle, clean) is None


def test_a_network_with_hidden_layers_has_no_depth() -> None:
    bundle, clean = nonrobust_bundle(), pictures(40, 5)
    assert depth(bundle, clean) == 1
    assert depth(replace(bundle, network=lambda x: x.mean((2, 3))), clean) is None
    for kind in ("torchscript", "onnx"):
        other = bundle.settings.model_copy(update={"format": kind})
        assert depth(replace(bundle, settings=other), clean) is None


def test_a_label_that_survives_amplification_has_less_doubt() -> None:
    pipeline, clean, counted = Pipeline(nonrobust_bundle()), pictures(60, 5), list[int]()
    network = pipeline.bundle.network
    assert isinstance(network, nn.Module)
    found = doubts(pipeline, ScaledNorms.of(network, 1), clean, counted.append)
    assert found.shape == (60,)
    assert sum(counted) == 60
    assert bool((found > 0).all())
    with torch.inference_mode():
        frames = pipeline.bundle.normalised(to_frames(clean.images, torch.device("cpu")))
        labels = network(frames).argmax(1)
        odds = label_odds(amplified(network, 1)(frames), labels).numpy()
    np.testing.assert_allclose(np.argsort(np.argsort(found)), np.argsort(np.argsort(-odds)), atol=2)
