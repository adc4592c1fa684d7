"""EOT-PGD differentiates fresh draws at the point it has reached, not at the clean frame."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lab.attacks import eot_pgd
from schemas.errors import BundleError, ConfigError

EPS = 0.1
FRAMES = torch.full((3, 1, 4, 4), 0.5)
LABELS = torch.zeros(3, dtype=torch.int64)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def binary(score: Tensor) -> Tensor:
    """Logits (B, 2) whose second class wins as `score` (B,) grows."""
    return torch.stack((torch.zeros_like(score), score), 1)


def test_the_gradient_is_taken_at_the_current_iterate() -> None:
    def peaked(frames: Tensor, _: torch.Generator) -> Tensor:
        # Best for the attacker at .52: from the clean frame at .5 on, the gradient says "up" until there, then "down".
        return binary(-100 * (frames - 0.52).square().sum((1, 2, 3)))

    adversarial = eot_pgd(peaked, FRAMES, LABELS, None, eps=EPS, steps=20, samples=1, generator=generator())

    # Steps of 2.5·ε/20 keep it about the peak; the gradient at the clean frame would lead to the bound at .6.
    assert (adversarial - 0.52).abs().max() <= 2.5 * EPS / 20 + 1e-6


def test_every_step_averages_fresh_draws() -> None:
    draws: list[float] = []

    def noisy(frames: Tensor, randomness: torch.Generator) -> Tensor:
        slope = 1 + 4 * torch.randn(frames.shape, generator=randomness)
        draws.append(slope[0, 0, 0, 0].item())
        return binary((slope * frames).sum((1, 2, 3)))

    many = eot_pgd(noisy, FRAMES, LABELS, None, eps=EPS, steps=4, samples=100, generator=generator())
    assert len(draws) == len(set(draws)) == 400

    few = eot_pgd(noisy, FRAMES, LABELS, None, eps=EPS, steps=4, samples=1, generator=generator())
    # The expected slope is 1 in every pixel; one draw has the wrong sign in 40 % of them.
    assert (many - FRAMES).mean() > 0.09
    assert (few - FRAMES).mean() < 0.06


@pytest.mark.parametrize("targeted", [False, True])
def test_it_keeps_the_ball_and_the_range_in_either_direction(targeted: bool) -> None:
    frames = torch.tensor([0.02, 0.5, 0.98])[:, None, None, None].expand(3, 1, 4, 4)
    targets = torch.zeros(3, dtype=torch.int64) if targeted else None

    def brighter(pictures: Tensor, _: torch.Generator) -> Tensor:
        return binary(pictures.sum((1, 2, 3)))

    adversarial = eot_pgd(brighter, frames, LABELS, targets, eps=EPS, steps=5, samples=2, generator=generator())

    expected = (frames + (-EPS if targeted else EPS)).clamp(0, 1)
    torch.testing.assert_close(adversarial, expected)


def test_it_starts_at_random() -> None:
    def flat(pictures: Tensor, _: torch.Generator) -> Tensor:
        return binary(0 * pictures.sum((1, 2, 3)))

    change = eot_pgd(flat, FRAMES, LABELS, None, eps=EPS, steps=1, samples=1, generator=generator()) - FRAMES
    assert change.abs().max() <= EPS
    assert change.std() > 0.03


def test_a_defence_without_gradients_is_refused() -> None:
    def closed(pictures: Tensor, _: torch.Generator) -> Tensor:
        return binary(pictures.detach().sum((1, 2, 3)))

    with pytest.raises(BundleError, match="expected a defence and a network that give gradients"):
        eot_pgd(closed, FRAMES, LABELS, None, eps=EPS, steps=1, samples=1, generator=generator())
    with pytest.raises(ConfigError, match="at least one step"):
        eot_pgd(closed, FRAMES, LABELS, None, eps=EPS, steps=0, samples=1, generator=generator())
