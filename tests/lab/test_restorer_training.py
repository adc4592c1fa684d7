"""Training of the restorer and of the filler: masks, attacks, examples, and resumed runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.chance import seeded
from lab.training import cifar10, filler, restorer
from lab.training.averaged import AveragedTraining
from lab.training.checkpoints import checkpoint_of
from lab.training.families import NETWORKS
from lab.training.recipe import Recipe
from lab.training.restorer import FEW_DROPPED, STRONGEST, Examples, MaskBank, Schedule
from lab.training.surrogate_attacks import few_steps
from processors.bundle import load_bundle
from processors.networks.filler import Filler
from processors.networks.restorer import Restorer


def test_training_masks_drop_the_same_number_of_pixels_in_every_block_of_a_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lab.training.restorer.MOST_DROPPED", 33)  # spreading the masks of each number takes time
    kept, few = MaskBank().draw(200, torch.Generator().manual_seed(0), few=0.5)
    dropped = (~kept).view(200, 4, 8, 4, 8).sum((2, 4)).flatten(1)
    assert (dropped == dropped[:, :1]).all()
    assert torch.equal(dropped[:, 0] < FEW_DROPPED, few)
    assert 0.4 < few.float().mean() < 0.8
    assert {16, 32} <= set(dropped[:, 0].tolist())


@pytest.mark.parametrize("targeted", [True, False])
def test_training_attacks_keep_their_bound_and_8_bits_and_raise_the_loss(targeted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (8, 3, 32, 32), generator=generator) / 255
    surrogate = load_bundle(NETWORKS / "vgg", torch.device("cpu"))
    labels = surrogate.logits(frames).argmax(1)
    attacked = few_steps(surrogate, frames, labels, 3, targeted, generator)
    levels = (attacked - frames) * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert 0 < levels.abs().max() <= STRONGEST + 1e-3
    before, after = (surrogate.logits(x).softmax(1).gather(1, labels[:, None]).mean() for x in (frames, attacked))
    assert after < before


def test_training_inputs_are_attacked_pictures_and_targets_are_clean_ones() -> None:
    clean = torch.full((64, 3, 32, 32), 100, dtype=torch.uint8)
    attacked = clean + 5
    examples = Examples(clean, clean[:4] + 50, [attacked], torch.Generator().manual_seed(0))
    inputs, targets = next(examples.batches(32, 0.25))
    levels = ((inputs - targets) * 255).round().amax((1, 2, 3))
    assert set(targets.mul(255).round().flatten().tolist()) == {100, 150}
    # Attacks are used as saved, doubled up to the bound, or left out. Larger pictures are never attacked.
    assert set(levels[:24].tolist()) == {0, 5, STRONGEST}
    assert not levels[24:].any()


def test_a_stopped_training_resumes_with_its_weights_and_its_optimiser(tmp_path: Path) -> None:
    def trained(steps: range, file: Path) -> nn.Linear:
        with seeded(0):
            network = nn.Linear(3, 1)
        training = AveragedTraining(network, 0.1, file, torch.Generator())
        for step in range(training.first, steps.stop):
            frames = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            training.descend((network(frames) - frames.sum(1, keepdim=True)).square().mean(), step, 0.1)
            training.save(step)
        return training.average

    whole = trained(range(9), tmp_path / "whole.pt")
    trained(range(4), tmp_path / "stopped.pt")
    later = trained(range(9), tmp_path / "stopped.pt")
    assert torch.equal(whole.weight, later.weight)
    with seeded(0):
        assert not torch.equal(whole.weight, nn.Linear(3, 1).weight)


class AnyMasks:
    """A source of random masks without codebooks."""

    def draw(self, count: int, generator: torch.Generator, few: float = 0.0) -> tuple[Tensor, Tensor]:
        return torch.rand(count, 1, 32, 32, generator=generator) > 0.25, torch.zeros(count, dtype=torch.bool)


def test_a_stopped_training_of_the_restorer_resumes_and_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restorer, "SAVED_EVERY", 2)
    monkeypatch.setattr(restorer, "MaskBank", AnyMasks)
    clean = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def trained(until: int, file: Path) -> Restorer:
        with seeded(0):
            network = Restorer()
        examples = Examples(clean, clean, [], torch.Generator().manual_seed(2))
        return restorer.fit(network, examples, Schedule(4, batch=2, until=until), [], 0.0, file)

    whole = trained(4, tmp_path / "whole.pt")
    trained(2, tmp_path / "stopped.pt")
    later = trained(4, tmp_path / "stopped.pt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, later.state_dict()[name]), name


def test_a_stopped_training_of_the_filler_resumes_and_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filler, "SAVED_EVERY", 1)
    crops = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def trained(until: int, file: Path) -> Filler:
        with seeded(0):
            network = Filler()
        return filler.fit(network, crops, crops[:1], Schedule(2, batch=8, until=until), file)

    whole = trained(2, tmp_path / "whole.pt")
    trained(1, tmp_path / "stopped.pt")
    later = trained(2, tmp_path / "stopped.pt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, later.state_dict()[name]), name


def test_a_training_with_other_settings_does_not_resume_an_earlier_one(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    recipe = Recipe(epochs=1, batch=2)

    def trained(recipe: Recipe, width: int = 1) -> nn.Module:
        return cifar10.train(images, np.arange(4), [0.5] * 3, [0.5] * 3, recipe, tmp_path, width)

    first = trained(recipe)
    trained(recipe, width=2)
    slower = trained(replace(recipe, peak_rate=0.001))
    assert not all(map(torch.equal, first.state_dict().values(), slower.state_dict().values()))
    again = trained(recipe)
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    assert len(list(tmp_path.glob("*.pt"))) == 3
    assert checkpoint_of(tmp_path, "one", "a", images) != checkpoint_of(tmp_path, "one", "a", images + 1)
