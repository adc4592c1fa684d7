"""PGD in the output box of a layer that is monotone in each pixel.

Such a layer maps the ε-ball around a frame exactly onto a box: a pixel's values run from the layer's value at its lower
end to the one at its upper end, independently of other pixels. PGD inside the box needs no gradient of the layer, so a
steep layer hides nothing. Each point of the box is the image of a frame in the ball, which bisection finds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

Layer = Callable[[Tensor], Tensor]
STEP: Final = 0.1
"""Length of a step in widths of the box."""
HALVINGS: Final = 30


@torch.no_grad()
def box(layer: Layer, frames: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the least and the largest image (B, C, H, W) of the L∞ ball of `eps` around frames in [0, 1]."""
    return layer((frames - eps).clamp(0, 1)), layer((frames + eps).clamp(0, 1))


@torch.no_grad()
def preimage(layer: Layer, wanted: Tensor, frames: Tensor, eps: float) -> Tensor:
    """Return frames within L∞ `eps` of `frames` whose image is `wanted`, a point of their box."""
    low, high = (frames - eps).clamp(0, 1), (frames + eps).clamp(0, 1)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = layer(middle) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    # Where the layer is flat, several frames have one image; the corners of the box are met by the ball's own.
    least, most = box(layer, frames, eps)
    found = torch.where(wanted >= most, (frames + eps).clamp(0, 1), high)
    return torch.where(wanted <= least, (frames - eps).clamp(0, 1), found)


def in_box(
    layer: Layer, behind: Layer, frames: Tensor, labels: Tensor, *, eps: float, steps: int, chance: torch.Generator
) -> Tensor:
    """Return frames within L∞ `eps` that PGD in the box of `layer` finds, with the loss of `behind` at their images."""
    found = worst_image(behind, *box(layer, frames, eps), labels, steps=steps, step=STEP, chance=chance)
    return preimage(layer, found, frames, eps)


def worst_image(
    behind: Layer, low: Tensor, high: Tensor, labels: Tensor, *, steps: int, step: float, chance: torch.Generator
) -> Tensor:
    """Return the points (B, C, H, W) between `low` and `high` that PGD finds from random points between them.

    It ascends the cross-entropy of `behind` to `labels` (B,) by steps of `step` widths of the box. Each picture keeps
    its worst point.
    """
    width = high - low
    current = low + width * torch.rand(low.shape, generator=chance)
    best, most = current, torch.full((len(low),), -torch.inf)
    for number in range(steps + 1):
        point = current.detach().requires_grad_()
        loss = F.cross_entropy(behind(point).float(), labels, reduction="none")
        better = loss.detach() > most
        best = torch.where(better[:, None, None, None], current, best)
        most = torch.where(better, loss.detach(), most)
        if number < steps:
            (gradient,) = torch.autograd.grad(loss.sum(), point)
            current = torch.minimum(torch.maximum(current + step * width * gradient.sign(), low), high)
    return best
