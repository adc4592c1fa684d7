"""The multi-level 2-D Haar transform (db1), orthonormal, batched over frames and channels.

Its coefficients are those of PyWavelets' `wavedec2(x, "db1", mode="symmetric", level)`. A side that is odd at some
level is extended there by its last row or column, and cropped again on the way back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Details:
    """The three detail sub-bands of one level, each (B, C, ⌈H/2⌉, ⌈W/2⌉), and the sides they came from.

    Horizontal, vertical and diagonal are PyWavelets' cH, cV and cD.
    """

    horizontal: Tensor
    vertical: Tensor
    diagonal: Tensor
    height: int
    width: int


def analyse(frames: Tensor, levels: int) -> tuple[Tensor, list[Details]]:
    """Return the approximation and the details, finest level first, of frames (B, C, H, W)."""
    approximation = frames
    details = []
    for _ in range(levels):
        height, width = approximation.shape[2:]
        if height % 2 or width % 2:
            approximation = F.pad(approximation, (0, width % 2, 0, height % 2), mode="replicate")
        upper, lower = approximation[:, :, ::2] * 0.5, approximation[:, :, 1::2] * 0.5
        mean, slope = upper + lower, upper - lower
        approximation = mean[..., ::2] + mean[..., 1::2]
        horizontal = slope[..., ::2] + slope[..., 1::2]
        vertical = mean[..., ::2] - mean[..., 1::2]
        diagonal = slope[..., ::2] - slope[..., 1::2]
        details.append(Details(horizontal, vertical, diagonal, height, width))
    return approximation, details


def synthesise(approximation: Tensor, details: list[Details]) -> Tensor:
    """Return the frames (B, C, H, W) of `analyse`'s coefficients: its inverse."""
    for level in reversed(details):
        mean = _interleave(approximation + level.vertical, approximation - level.vertical, dim=3)
        slope = _interleave(level.horizontal + level.diagonal, level.horizontal - level.diagonal, dim=3)
        whole = _interleave(mean + slope, mean - slope, dim=2).mul_(0.5)
        approximation = whole[:, :, : level.height, : level.width]
    return approximation


def _interleave(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    return torch.stack((even, odd), dim + 1).flatten(dim, dim + 1)
