"""The whole defence under an adaptive attack: fresh masks, known masks and no masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lab.attacks import defended, eot_pgd, fixed, undefended, with_key
from lab.masks import random_masks
from processors.bundle import load_bundle
from processors.pipeline import Pipeline
from processors.stages.drop import drop
from schemas.errors import ConfigError
from tests.lab.colour_classifier import write_bundle
from tests.lab.rng import rng

CPU = torch.device("cpu")
SHARE = 0.25


FRAMES = 0.2 + 0.6 * torch.rand(4, 3, 16, 16, generator=rng(1))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(load_bundle(write_bundle(tmp_path_factory.mktemp("colours")), CPU))


def test_each_call_draws_fresh_masks_of_the_fleet(pipeline: Pipeline) -> None:
    each, draws = defended(pipeline, SHARE), rng()
    kept = random_masks(4, 16, 16, SHARE, rng())

    first, second = each(FRAMES, draws), each(FRAMES, draws)

    torch.testing.assert_close(first, pipeline.logits(drop(FRAMES, kept), kept))
    assert not torch.equal(first, second)


def test_random_stages_draw_from_the_generator_or_from_a_known_key(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    distortion = '[[preprocess]]\nstage = "grid-distortion"\nlimit = 0.3\ncell = 4\n'
    settings = folder / "model.toml"
    settings.write_text(settings.read_text() + "\n" + distortion)
    pipeline = Pipeline(load_bundle(folder, CPU))
    textured = torch.rand(4, 3, 16, 16, generator=rng(1))

    whole = defended(pipeline, 0.0)
    assert torch.equal(whole(textured, rng(3)), whole(textured, rng(3)))
    assert not torch.equal(whole(textured, rng(3)), whole(textured, rng(4)))

    kept = random_masks(1, 16, 16, SHARE, rng(5))
    known = with_key(pipeline, kept, torch.tensor([7]))
    assert torch.equal(known(textured, rng(1)), known(textured, rng(2)))
    other = with_key(pipeline, kept, torch.tensor([8]))
    assert not torch.equal(known(textured, rng(1)), other(textured, rng(1)))
    torch.testing.assert_close(
        undefended(pipeline.bundle)(textured, rng(1)), undefended(pipeline.bundle)(textured, rng(2))
    )


def test_dropped_pixels_have_no_gradient_and_kept_pixels_have_one(pipeline: Pipeline) -> None:
    kept = random_masks(4, 16, 16, SHARE, rng(5))
    point = FRAMES.clone().requires_grad_()
    logits = with_key(pipeline, kept)(point, rng())
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), point)
    assert (gradient.masked_select(~kept.expand_as(gradient)) == 0).all()
    assert (gradient.masked_select(kept.expand_as(gradient)) != 0).any()


def test_one_known_mask_applies_to_any_number_of_frames(pipeline: Pipeline) -> None:
    kept = random_masks(1, 16, 16, SHARE, rng(5))
    known = with_key(pipeline, kept)
    torch.testing.assert_close(known(FRAMES, rng(1))[:2], known(FRAMES[:2], rng(2)))
    with pytest.raises(ConfigError, match=r"frames for the masks \(3, 1, 16, 16\)"):
        with_key(pipeline, kept.expand(3, -1, -1, -1))(FRAMES, rng())
    with pytest.raises(ConfigError, match=r"got \(4, 3, 8, 16\)"):
        known(FRAMES[:, :, :8], rng())


def test_a_defence_with_fixed_randomness_is_constant_and_draws_nothing(pipeline: Pipeline) -> None:
    fixed_defence, draws = fixed(defended(pipeline, SHARE), 7), rng()
    before = draws.get_state()
    assert torch.equal(fixed_defence(FRAMES, draws), fixed_defence(FRAMES, draws))
    assert torch.equal(draws.get_state(), before)
    assert not torch.equal(fixed_defence(FRAMES, draws), fixed(defended(pipeline, SHARE), 8)(FRAMES, draws))


def test_the_undefended_network_sees_whole_frames(pipeline: Pipeline) -> None:
    bundle = pipeline.bundle
    torch.testing.assert_close(undefended(bundle)(FRAMES, rng()), bundle.logits(bundle.prepare(FRAMES)))


def test_a_bundle_can_be_attacked_through_its_masks(pipeline: Pipeline) -> None:
    each = defended(pipeline, SHARE)
    labels = each(FRAMES, rng()).argmax(1)

    def loss(frames: Tensor) -> float:
        return float(torch.nn.functional.cross_entropy(each(frames, rng(3)), labels))

    attacked = eot_pgd(each, FRAMES, labels, None, eps=0.1, steps=3, samples=2, generator=rng())
    assert loss(attacked) > loss(FRAMES)


def test_drop_ratios_that_no_camera_uses_are_rejected(pipeline: Pipeline) -> None:
    with pytest.raises(ConfigError, match=r"drop ratio: expected 0 to 0.875, got 0.9"):
        defended(pipeline, 0.9)
