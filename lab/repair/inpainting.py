"""Holes in frames filled from their borders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def inpaint(frames: Tensor, holes: Tensor) -> Tensor:
    """Return frames (B, C, H, W) with the holes (B, 1, H, W) of ones filled from their borders, by 3×3 means."""
    known = 1 - holes
    filled = frames * known
    for _ in range(max(frames.shape[2:])):
        if bool((known > 0).all()):
            break
        count = F.avg_pool2d(known, 3, 1, 1)
        mean = F.avg_pool2d(filled, 3, 1, 1) / count.clamp_min(1e-6)
        fresh = (known == 0) & (count > 0)
        filled = torch.where(fresh, mean, filled)
        known = torch.where(fresh, 1.0, known)
    return filled
