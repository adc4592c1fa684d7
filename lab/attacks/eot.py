"""PGD through a defence whose randomness the attacker cannot know: expectation over transformation.

Athalye, Engstrom, Ilyas and Kwok 2018; the gradient is that of the mean loss over fresh draws of the defence, taken
at the current iterate. Taken at the clean frame instead, it would tell what to do there and not here, and a defence
would look stronger than it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.attacks.contract import in_batches
from lab.attacks.norms import linf_noise
from schemas.errors import BundleError, ConfigError

_ACROSS = 2.5  # as in PGD: steps · step size = 2.5 ε


def eot_pgd(
    defended: Callable[[Tensor, torch.Generator], Tensor],
    frames: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    *,
    eps: float,
    steps: int,
    samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Adversarial frames (B, C, H, W) in [0, 1], not rounded, within L∞ `eps` of `frames`, from a random start.

    `defended` maps frames and the generator of its draws to logits (B, classes); it is called `samples` times a step,
    and must be differentiable (or bring its own surrogate gradient), else BundleError. Every step descends the mean
    cross-entropy to `targets` (B,), or without them ascends that to `labels` (B,), by 2.5·ε/steps.
    """
    if steps < 1 or samples < 1:
        raise ConfigError(f"eot-pgd: expected at least one step and one sample, got {steps} and {samples}")
    found = []
    for part, part_labels, part_targets in in_batches(frames, labels, targets):
        classes, direction = (part_labels, 1) if part_targets is None else (part_targets, -1)
        current = (part + linf_noise(part, eps, generator)).clamp(0, 1)
        for _ in range(steps):
            gradient = torch.zeros_like(current)
            for _ in range(samples):
                gradient += _loss_gradient(defended, current, classes, generator)
            current = current + direction * _ACROSS * eps / steps * gradient.sign()
            current = (part + (current - part).clamp(-eps, eps)).clamp(0, 1)
        found.append(current)
    return torch.cat(found)


def _loss_gradient(
    defended: Callable[[Tensor, torch.Generator], Tensor], current: Tensor, classes: Tensor, generator: torch.Generator
) -> Tensor:
    with torch.enable_grad():
        point = current.detach().requires_grad_()
        logits = defended(point, generator)
        if not logits.requires_grad:
            raise BundleError(
                "eot-pgd: expected a defence and a network that give gradients, got logits without a graph"
            )
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, classes, reduction="sum"), point)
    return gradient
