"""The 8×8 blocks that JPEG's kind work on, and their DCT as one product."""

from __future__ import annotations

from functools import cache
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from processors.stages.paper import dct_matrix

SIDE: Final = 8

ON_A_TIE: Final = 0.5 + 2**-14
"""What is added to a magnitude before it is rounded down. Half a step would leave ties, as flat pictures make them, to
the order in which a device adds up; the excess is far above its rounding and far below what the quantisation leaves."""


def to_blocks(frames: Tensor) -> Tensor:
    """Frames (B, C, H, W), extended by their last row and column to multiples of 8, as (B, C, rows, columns, 8, 8)."""
    height, width = frames.shape[2:]
    whole = F.pad(frames, (0, -width % SIDE, 0, -height % SIDE), mode="replicate")
    rows, columns = whole.shape[2] // SIDE, whole.shape[3] // SIDE
    return whole.reshape(*frames.shape[:2], rows, SIDE, columns, SIDE).transpose(3, 4)


def from_blocks(blocks: Tensor, height: int, width: int) -> Tensor:
    """The frames (B, C, height, width) that `to_blocks` cut."""
    return blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


def quantised(planes: Tensor, steps: Tensor) -> Tensor:
    """Planes (B, C, H, W) with the coefficients of their blocks rounded to multiples of `steps`, not clamped.

    `steps` is (8, 8), or (C, 8, 8) with a table for each channel, by vertical and horizontal frequency, on the scale of
    the planes. The transform is the orthonormal DCT-II; no gradient passes the rounding.
    """
    exact = _exact(planes)
    basis = _basis(planes.device, exact)
    table = steps.to(planes.device, exact).reshape(-1, 1, SIDE * SIDE)
    blocks = to_blocks(planes.to(exact))
    flat = blocks.flatten(0, 1).flatten(1, 2).flatten(2)
    if len(table) > 1:
        table = table.repeat(len(planes), 1, 1)
    counts = flat @ basis.T / table
    levels = (counts.abs() + ON_A_TIE).floor().copysign(counts)
    restored = (levels * table) @ basis
    return from_blocks(restored.view(blocks.shape), *planes.shape[2:]).to(planes.dtype)


def coefficients(planes: Tensor) -> Tensor:
    """The orthonormal DCT-II of each block of planes (B, C, H, W): (B, C, blocks, 64), vertical frequency first."""
    basis = _basis(planes.device, planes.dtype)
    return to_blocks(planes).flatten(2, 3).flatten(3) @ basis.T


def _exact(planes: Tensor) -> torch.dtype:
    # A GPU may be set to round the factors of float32 products to 10 bits: too coarse to count steps with.
    return torch.float64 if planes.device.type == "cuda" or planes.dtype == torch.float64 else torch.float32


@cache
@torch.inference_mode(False)  # or the first call's mode would decide whether later ones can be differentiated
def _basis(device: torch.device, dtype: torch.dtype) -> Tensor:
    """One row a frequency: (64, 64)."""
    return torch.kron(dct_matrix(), dct_matrix()).to(device, dtype)
