"""Random points of L∞ and L2 balls around frames, and the projection into these balls."""

from __future__ import annotations

import torch
from torch import Tensor


def linf_noise(frames: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Return uniform noise in the L∞ ball: each value in [−ε, ε], in the shape of `frames`."""
    noise = torch.rand(frames.shape, generator=generator, device=generator.device, dtype=frames.dtype)
    return (2 * noise - 1).to(frames.device) * eps


def l2_noise(frames: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Return uniform noise in the L2 ball around each of `frames` (B, C, H, W).

    It is a normal direction at radius ε·u^(1/n).
    """
    direction = torch.randn(frames.shape, generator=generator, device=generator.device, dtype=frames.dtype)
    radius = torch.rand(len(frames), generator=generator, device=generator.device, dtype=frames.dtype)
    radius = eps * radius.pow(1 / frames[0].numel())
    return (direction * (radius / l2(direction))[:, None, None, None]).to(frames.device)


def l2(differences: Tensor) -> Tensor:
    """Return the L2 norm (B,) of each of `differences` (B, C, H, W)."""
    norms: Tensor = torch.linalg.vector_norm(differences, dim=(1, 2, 3))
    return norms


def into_l2_ball(adversarial: Tensor, frames: Tensor, eps: float) -> Tensor:
    """Return `adversarial` (B, C, H, W), moved straight towards `frames` until it is within ε of them in L2."""
    difference = adversarial - frames
    factor = (eps / l2(difference).clamp_min(torch.finfo(frames.dtype).tiny)).clamp_max(1)
    return frames + difference * factor[:, None, None, None]


def into_linf_ball(adversarial: Tensor, frames: Tensor, eps: float) -> Tensor:
    """Return `adversarial` (B, C, H, W), moved straight towards `frames` until it is within ε of them in L∞."""
    difference = adversarial - frames
    largest = difference.abs().amax((1, 2, 3)).clamp_min(torch.finfo(frames.dtype).tiny)
    return frames + difference * (eps / largest).clamp_max(1)[:, None, None, None]
