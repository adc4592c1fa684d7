"""PGD through a defence whose randomness the attacker cannot predict: expectation over transformation.

Athalye, Engstrom, Ilyas and Kwok 2018. The gradient of the mean loss over fresh draws of the defence is taken at the
current iterate. A gradient at the clean frame would be wrong for the iterate, and the defence would look stronger than
it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.attacks.contract import Defended, Norm, check_classes, check_request, in_batches, margins
from lab.attacks.norms import into_l2_ball, l2, l2_noise, linf_noise
from schemas.errors import BundleError, ConfigError

_ACROSS = 2.5  # as in PGD: steps · step size = 2.5 ε

Loss = Callable[[Tensor], Tensor]
"""A loss (B,) of logits (B, classes)."""


def eot_pgd(
    defended: Defended,
    frames: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    *,
    eps: float,
    steps: int,
    samples: int,
    generator: torch.Generator,
    norm: Norm = "linf",
    step: float | None = None,
    momentum: float = 0.0,
    random_start: bool = True,
    margin: bool = False,
) -> Tensor:
    """Return adversarial frames (B, C, H, W) in [0, 1], not rounded, within `eps` of `frames` in `norm`.

    `defended` is called `samples` times per step, each time with fresh draws. It must be differentiable, or bring its
    own surrogate gradient; otherwise BundleError is raised. Every step descends the mean cross-entropy to `targets`
    (B,). Without targets, it ascends the cross-entropy to `labels` (B,). The step's length is `step` · ε, usually
    2.5·ε/steps. With `momentum` μ the direction follows MI-FGSM (Dong et al. 2018): μ times the last one plus the
    gradient of mean absolute value 1. The start is a random point of the ball, or the frame itself. With `margin` every
    step ascends the attacker's margin between logits in place of the cross-entropy, whose gradient is small where the
    network is sure. Raises ConfigError for invalid input.
    """
    if steps < 1 or samples < 1:
        raise ConfigError(f"eot-pgd: expected at least one step and one sample, got {steps} and {samples}")
    check_request(frames, labels, targets, eps, norm)
    length = (_ACROSS / steps if step is None else step) * eps
    found = []
    for part, part_labels, part_targets in in_batches(frames, labels, targets):
        classes, towards = (part_labels, 1) if part_targets is None or margin else (part_targets, -1)
        loss = partial(margins, labels=part_labels, targets=part_targets) if margin else None
        current = _random_start(part, eps, norm, generator) if random_start else part
        heading = torch.zeros_like(part)
        for _ in range(steps):
            gradient = loss_gradient(defended, current, classes, samples, generator, loss)
            if momentum:
                heading = momentum * heading + gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
                gradient = heading
            current = _project(current + towards * length * _direction(gradient, norm), part, eps, norm)
        found.append(current)
    return torch.cat(found) if found else frames.clone()


def loss_gradient(
    defended: Defended,
    current: Tensor,
    classes: Tensor,
    samples: int,
    generator: torch.Generator,
    loss: Loss | None = None,
) -> Tensor:
    """Return the gradient (B, C, H, W) at `current` of each frame's `loss`, summed over `samples`.

    By default the loss is the cross-entropy against `classes` (B,).
    """
    gradient = torch.zeros_like(current)
    for _ in range(samples):
        gradient += _one_gradient(defended, current, classes, generator, loss)
    return gradient


def _one_gradient(
    defended: Defended, current: Tensor, classes: Tensor, generator: torch.Generator, loss: Loss | None
) -> Tensor:
    with torch.enable_grad():
        point = current.detach().requires_grad_()
        logits = defended(point, generator)
        if not logits.requires_grad:
            raise BundleError(
                "eot-pgd: expected a defence and a network that give gradients, got logits without a graph"
            )
        check_classes(logits, classes)
        value = F.cross_entropy(logits, classes, reduction="sum") if loss is None else loss(logits).sum()
        (gradient,) = torch.autograd.grad(value, point)
    return gradient


def _random_start(frames: Tensor, eps: float, norm: Norm, generator: torch.Generator) -> Tensor:
    noise = linf_noise if norm == "linf" else l2_noise
    return (frames + noise(frames, eps, generator)).clamp(0, 1)


def _direction(gradient: Tensor, norm: Norm) -> Tensor:
    if norm == "linf":
        return gradient.sign()
    return gradient / l2(gradient).clamp_min(1e-12)[:, None, None, None]


def _project(current: Tensor, frames: Tensor, eps: float, norm: Norm) -> Tensor:
    if norm == "linf":
        return (frames + (current - frames).clamp(-eps, eps)).clamp(0, 1)
    return into_l2_ball(current, frames, eps).clamp(0, 1)
