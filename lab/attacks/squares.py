"""The random search of the Square attack (Andriushchenko et al. 2020), without the comparison of frames.

It starts from vertical stripes of ±ε and then tries one square per step: at a random place, ±ε in each channel. Squares
shrink by the paper's schedule (`p`, its section 3.2), scaled to the number of queries.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Better = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A comparison, called once per step, that returns (b,) bool: which candidates are better.

Its arguments are candidates (b, C, H, W), the best frames so far, and the indices of these among all frames (b,).
"""

FIRST_SHARE = 0.8
"""Share of the picture that the first squares cover."""

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, on a scale of 10,000, after which the share is halved."""


def stripes(frames: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Return the frames (B, C, H, W) plus or minus `eps`, by column and channel."""
    batch, channels, _, width = frames.shape
    return (frames + eps * _signs((batch, channels, 1, width), generator).to(frames)).clamp(0, 1)


def random_squares(
    frames: Tensor,
    start: Tensor,
    better: Better,
    left: Callable[[], Tensor],
    *,
    eps: float,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the best frames (B, C, H, W) after `steps` squares, within L∞ `eps` of `frames`.

    `left` returns the indices (b,) of unfinished frames. The search ends when there are none.
    """
    best = start.clone()
    for number in range(steps):
        rows = left()
        if not len(rows):
            break
        side = square_side(number / steps, *frames.shape[2:])
        candidates = _with_square(best[rows], frames[rows], side, eps, generator)
        won = better(candidates, best[rows], rows)
        best[rows[won]] = candidates[won]
    return best


def square_side(progress: float, height: int, width: int) -> int:
    """Return the side of a square in pixels at a `progress` from 0 to 1."""
    halved = sum(progress * 10_000 > bound for bound in _HALVINGS)
    side = round(math.sqrt(FIRST_SHARE / 2**halved * height * width))
    return min(max(side, 1), height, width)


def _with_square(best: Tensor, frames: Tensor, side: int, eps: float, generator: torch.Generator) -> Tensor:
    batch, channels, height, width = frames.shape
    top = torch.randint(height - side + 1, (batch, 1, 1, 1), generator=generator, device=generator.device)
    left = torch.randint(width - side + 1, (batch, 1, 1, 1), generator=generator, device=generator.device)
    row = torch.arange(height, device=generator.device)[:, None]
    column = torch.arange(width, device=generator.device)
    inside = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
    change = eps * _signs((batch, channels, 1, 1), generator).to(frames)
    return torch.where(inside.to(frames.device), (frames + change).clamp(0, 1), best)


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(2, shape, generator=generator, device=generator.device) * 2 - 1
