"""What a baseline defence is, and the 8×8 blocks that JPEG's kind work on."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Baseline = Callable[[Tensor, torch.Generator], Tensor]
"""Frames (B, C, H, W) in [0, 1] and the generator of its randomness to cleaned frames of the same shape."""

SIDE = 8


def to_blocks(frames: Tensor) -> Tensor:
    """Frames (B, C, H, W), extended by their last row and column to multiples of 8, as (B, C, rows, columns, 8, 8)."""
    height, width = frames.shape[2:]
    whole = F.pad(frames, (0, -width % SIDE, 0, -height % SIDE), mode="replicate")
    rows, columns = whole.shape[2] // SIDE, whole.shape[3] // SIDE
    return whole.reshape(*frames.shape[:2], rows, SIDE, columns, SIDE).transpose(3, 4)


def from_blocks(blocks: Tensor, height: int, width: int) -> Tensor:
    """The frames (B, C, height, width) that `to_blocks` cut."""
    return blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, :height, :width]
