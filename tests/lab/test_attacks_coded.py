"""Attacks on the profile `video`: fresh masks, fill, codec, and the classifier on the decoded planes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lab.attacks.coded import coded, coded_bpda
from lab.attacks.defences import defended
from lab.codec import through_key_frame, through_probe
from lab.data import to_frames
from lab.masks import random_masks
from processors.bundle import load_bundle, shipped_bundle
from processors.pipeline import Pipeline
from producers.scene.simulator import SceneSimulator
from schemas.pixels.packing import Picture
from schemas.pixels.planes import to_picture
from tests.lab.rng import rng

CPU = torch.device("cpu")
SIDE = 160


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(load_bundle(shipped_bundle("scene"), CPU))


@pytest.fixture(scope="module")
def picture() -> Picture:
    return SceneSimulator(5, 1, (SIDE, SIDE)).render(3)[0]


def psnr_db(one: Picture, other: Picture) -> float:
    return float(10 * np.log10(255**2 / np.square(one.astype(np.float64) - other).mean()))


def test_a_key_frame_contains_kept_pixels_and_nothing_of_dropped_pixels(picture: Picture) -> None:
    kept = random_masks(1, SIDE, SIDE, 0.25, rng())[0, 0].numpy()
    decoded = through_key_frame(picture, kept)
    grey = to_picture(decoded)[kept].mean(1), picture[kept].mean(1)
    assert np.abs(grey[0] - grey[1]).mean() < 5
    painted = np.where(kept[..., None], picture, 255 - picture)
    again = through_key_frame(painted, kept)
    assert np.array_equal(decoded.luma, again.luma)
    assert np.array_equal(to_picture(decoded), to_picture(again))
    assert psnr_db(through_probe(picture), picture) > psnr_db(to_picture(decoded), picture)


def test_the_attacker_gets_almost_the_processors_logits_and_gradients_of_kept_pixels_alone(
    pipeline: Pipeline, picture: Picture
) -> None:
    frames = to_frames(picture[None], CPU)
    exact = coded(pipeline, 0.25)(frames, rng())
    point = frames.clone().requires_grad_()
    seen = coded_bpda(pipeline, 0.25)(point, rng())
    assert not exact.requires_grad
    assert float((exact - seen.detach()).abs().max()) < 0.1 * float(exact.abs().max())
    (gradient,) = torch.autograd.grad(seen.logsumexp(1).sum(), point)
    kept = random_masks(1, SIDE, SIDE, 0.25, rng())[0, 0]
    assert float(gradient[..., ~kept].abs().max()) == 0
    assert float(gradient[..., kept].abs().max()) > 0


def test_the_codec_changes_the_logits_and_each_call_draws_fresh_masks(pipeline: Pipeline, picture: Picture) -> None:
    frames, draws = to_frames(picture[None], CPU), rng()
    each = coded(pipeline, 0.25)
    first, second = each(frames, draws), each(frames, draws)
    assert not torch.equal(first, second)
    assert torch.equal(first, each(frames, rng()))
    assert not torch.allclose(first, defended(pipeline, 0.25)(frames, rng()))
