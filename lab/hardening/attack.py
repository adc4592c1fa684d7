"""The attack of adversarial training: one step from wide noise, or PGD, with a fresh mask in every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_ACROSS = 2.5  # as in PGD: steps · step size = 2.5 ε


def attacked(
    logits: Callable[[Tensor, Tensor], Tensor],
    frames: Tensor,
    labels: Tensor,
    noise: Tensor,
    masks: Sequence[Tensor],
    *,
    eps: Tensor,
    start: float,
) -> Tensor:
    """Return frames (B, C, H, W) in [0, 1] on which `logits` of frames and masks err, after one step per mask.

    `eps` (B, 1, 1, 1) bounds each frame. `noise` is uniform in [−1, 1]. With one mask it is N-FGSM: noise of `start` ·
    ε, then a step of ε, without projection. The missing projection keeps a network from learning to fool the single
    step (de Jorge et al. 2022). With several masks it is PGD within ε from a random start, by steps of 2.5 ε ÷ steps.
    """
    if len(masks) == 1:
        begun = frames + start * eps * noise
        return (begun + eps * _direction(logits, begun.clamp(0, 1), labels, masks[0])).clamp(0, 1)
    current = (frames + eps * noise).clamp(0, 1)
    for mask in masks:
        current = current + _ACROSS * eps / len(masks) * _direction(logits, current, labels, mask)
        current = (frames + (current - frames).clamp(-eps, eps)).clamp(0, 1)
    return current


def _direction(logits: Callable[[Tensor, Tensor], Tensor], frames: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    with torch.enable_grad():
        point = frames.detach().requires_grad_()
        loss = F.cross_entropy(logits(point, mask).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point)
    return gradient.sign()
