"""The 8×8 blocks of JPEG-like codecs, and their DCT as one matrix product."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from processors.stages.paper import dct_matrix

SIDE: Final = 8

ON_A_TIE: Final = 0.5 + 2**-14
"""Amount that is added to a magnitude before it is rounded down. Half a step would leave ties, common in flat pictures,
to
a device's order of summation. The excess is far above the device's rounding error and far below the quantisation's
loss.
"""

_EXACT: Final = torch.float64
"""Type of the products that count steps. Counts reach 2,040 divided by the step. In float32, the rounding of a few
thousand steps exceeds the excess of `ON_A_TIE`, and the batch size and the vector width decide on ties. A GPU may round
the factors of float32 products to 10 bits.
"""


def to_blocks(frames: Tensor) -> Tensor:
    """Cut frames (B, C, H, W), extended by their last row and column to multiples of 8, into (B, C, rows, columns, 8,
    8).
    """
    height, width = frames.shape[2:]
    whole = F.pad(frames, (0, -width % SIDE, 0, -height % SIDE), mode="replicate")
    rows, columns = whole.shape[2] // SIDE, whole.shape[3] // SIDE
    return whole.reshape(*frames.shape[:2], rows, SIDE, columns, SIDE).transpose(3, 4)


def from_blocks(blocks: Tensor, height: int, width: int) -> Tensor:
    """Return the frames (B, C, height, width) that `to_blocks` cut."""
    return blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


class Quantiser(NamedTuple):
    """The constants of `quantised`, on its device: made once, because a compiler cannot follow a cache."""

    basis: Tensor
    """(64, 64): the orthonormal DCT-II of 8×8 pixels, one row a frequency."""
    steps: Tensor
    """(1 or C, 1, 64): the step of each frequency, on the scale of the planes."""


def quantiser(steps: Tensor, device: torch.device) -> Quantiser:
    """Return the constants for planes on `device`: `steps` is (8, 8), or (C, 8, 8) with a table for each channel.

    A line of a table is a vertical frequency, a column a horizontal one.
    """
    return Quantiser(basis(device, _EXACT), steps.to(device, _EXACT).reshape(-1, 1, SIDE * SIDE))


def quantised(planes: Tensor, by: Quantiser) -> Tensor:
    """Round the coefficients of the blocks of planes (B, C, H, W) to multiples of the steps, without clamping.

    No gradient passes the rounding. The result has the type of `planes`, and does not depend on the batch.
    """
    blocks = to_blocks(planes.to(by.basis.dtype))
    flat = blocks.flatten(2, 3).flatten(3).flatten(0, 1)
    steps = by.steps if len(by.steps) == 1 else by.steps.repeat(len(planes), 1, 1)
    counts = flat @ by.basis.T / steps
    levels = (counts.abs() + ON_A_TIE).floor().copysign(counts)
    restored = (levels * steps) @ by.basis
    return from_blocks(restored.view(blocks.shape), *planes.shape[2:]).to(planes.dtype)


def coefficients(planes: Tensor) -> Tensor:
    """Return the orthonormal DCT-II of the blocks of planes (B, C, H, W): (B, C, blocks, 64), vertical first."""
    return to_blocks(planes).flatten(2, 3).flatten(3) @ basis(planes.device, planes.dtype).T


def basis(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the basis (64, 64), one row a frequency."""
    return torch.kron(dct_matrix(), dct_matrix()).to(device, dtype)
