"""Small judges for attacks: a linear one, whose borders are known, and a network of two layers."""

from __future__ import annotations

import torch
from torch import Tensor

SHAPE = (3, 8, 8)
CLASSES = 5
COUNT = 12


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


WEIGHTS = torch.randn(CLASSES, 3 * 8 * 8, generator=chance(1))
WEIGHTS -= WEIGHTS.mean(1, keepdim=True)  # so that the mean brightness decides nothing
FRAMES = (0.1 + 0.8 * torch.rand(COUNT, *SHAPE, generator=chance(2))).mul(255).round() / 255
HIDDEN = torch.randn(24, 3 * 8 * 8, generator=chance(3)) / 8
OUTPUT = torch.randn(CLASSES, 24, generator=chance(4))


def linear(frames: Tensor) -> Tensor:
    """Logits (B, 5)."""
    return (frames - 0.5).flatten(1) @ WEIGHTS.to(frames).T


def bent(frames: Tensor) -> Tensor:
    """Logits (B, 5) that are smooth and not linear."""
    return 4 * torch.tanh((frames - 0.5).flatten(1) @ HIDDEN.to(frames).T) @ OUTPUT.to(frames).T


def bare(frames: Tensor, generator: torch.Generator) -> Tensor:
    """The linear judge as a defence that does nothing."""
    return linear(frames)


def noisy(frames: Tensor, generator: torch.Generator) -> Tensor:
    """The linear judge behind noise that is drawn anew."""
    return linear(frames + 0.3 * torch.randn(frames.shape, generator=generator))


def hazy(frames: Tensor, generator: torch.Generator) -> Tensor:
    """The same with less of it."""
    return linear(frames + 0.1 * torch.randn(frames.shape, generator=generator))


LABELS = linear(FRAMES).argmax(1)
TARGETS = (LABELS + torch.randint(1, CLASSES, (COUNT,), generator=chance(5))) % CLASSES
