"""The interface of a baseline defence, and the 8×8 blocks of JPEG-like defences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from processors.stages.preprocess.blocks import SIDE, from_blocks, to_blocks

__all__ = ["SIDE", "Baseline", "from_blocks", "to_blocks"]

Baseline = Callable[[Tensor, torch.Generator], Tensor]
"""A function from frames (B, C, H, W) in [0, 1] and a generator for randomness to cleaned frames of the same shape."""
