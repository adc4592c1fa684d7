"""Random frames and masks for the tests of the stages."""

from __future__ import annotations

import torch
from torch import Tensor


def random_case(
    shape: tuple[int, int, int, int], ratio: float, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return frames (B, C, H, W) in [0, 1] and masks (B, 1, H, W) of which a share `ratio` is dropped."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(shape, generator=generator, dtype=dtype)
    return frames, torch.rand(shape[0], 1, *shape[2:], generator=generator) >= ratio
