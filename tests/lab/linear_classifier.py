"""Small classifiers for attacks: a linear one, whose decision boundaries are known, and a network of two layers."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.lab.rng import rng

SHAPE = (3, 8, 8)
CLASSES = 5
COUNT = 12


WEIGHTS = torch.randn(CLASSES, 3 * 8 * 8, generator=rng(1))
WEIGHTS -= WEIGHTS.mean(1, keepdim=True)  # the mean brightness has no effect
FRAMES = (0.1 + 0.8 * torch.rand(COUNT, *SHAPE, generator=rng(2))).mul(255).round() / 255
HIDDEN = torch.randn(24, 3 * 8 * 8, generator=rng(3)) / 8
OUTPUT = torch.randn(CLASSES, 24, generator=rng(4))


def linear(frames: Tensor) -> Tensor:
    """Return logits (B, 5)."""
    return (frames - 0.5).flatten(1) @ WEIGHTS.to(frames).T


def nonlinear(frames: Tensor) -> Tensor:
    """Return logits (B, 5) that are a smooth and nonlinear function of the frames."""
    return 4 * torch.tanh((frames - 0.5).flatten(1) @ HIDDEN.to(frames).T) @ OUTPUT.to(frames).T


def bare(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return the logits of the linear classifier, as a defence that changes nothing."""
    return linear(frames)


def noisy(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return the logits of the linear classifier on frames with fresh noise."""
    return linear(frames + 0.3 * torch.randn(frames.shape, generator=generator))


def slightly_noisy(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return the logits of the linear classifier on frames with less noise."""
    return linear(frames + 0.1 * torch.randn(frames.shape, generator=generator))


LABELS = linear(FRAMES).argmax(1)
TARGETS = (LABELS + torch.randint(1, CLASSES, (COUNT,), generator=rng(5))) % CLASSES
