"""The checks of tensors that all stages share."""

from __future__ import annotations

import torch
from torch import Tensor

from schemas.errors import StageError


def check_frames(frames: Tensor, name: str = "frames") -> None:
    """Raise StageError unless `frames` is a floating (B, C, H, W) tensor whose C, H and W are at least 1."""
    if frames.ndim != 4 or min(frames.shape[1:]) < 1:
        raise StageError(f"{name}: expected (B, C, H, W) with C, H, W at least 1, got {tuple(frames.shape)}")
    if not frames.is_floating_point():
        raise StageError(f"{name}: expected floating point in [0, 1], got {frames.dtype}")


def check_kept(frames: Tensor, kept: Tensor) -> None:
    """Raise StageError unless `kept` is the boolean mask (B, 1, H, W) of `frames` (B, C, H, W)."""
    check_frames(frames)
    expected = (frames.shape[0], 1, *frames.shape[2:])
    if tuple(kept.shape) != expected:
        raise StageError(f"kept: expected shape {expected} for frames {tuple(frames.shape)}, got {tuple(kept.shape)}")
    if kept.dtype != torch.bool:
        raise StageError(f"kept: expected torch.bool, got {kept.dtype}")


def check_size(height: int, width: int) -> None:
    """Raise StageError unless both sides are at least one pixel."""
    if height < 1 or width < 1:
        raise StageError(f"size: expected height and width at least 1, got {height}×{width}")
