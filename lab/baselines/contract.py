"""What a baseline defence is, and the 8×8 blocks that JPEG's kind work on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from processors.preprocess.blocks import SIDE, from_blocks, to_blocks

__all__ = ["SIDE", "Baseline", "from_blocks", "to_blocks"]

Baseline = Callable[[Tensor, torch.Generator], Tensor]
"""Frames (B, C, H, W) in [0, 1] and the generator of its randomness to cleaned frames of the same shape."""
