"""STRIP: a backdoored frame keeps its class whatever is laid over it (Gao et al. 2019, section IV).

Clean frames change class with the overlay, so the entropy of their verdicts is high; a trigger keeps it near
zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from processors.stages.shapes import check_frames
from schemas.errors import StageError


def class_entropy(logits: Tensor) -> Tensor:
    """Entropy in bits of softmax(logits) over the classes: (B, classes) to (B,), from 0 to log2(classes)."""
    log_p = torch.log_softmax(logits, dim=1)
    # 0 · log 0 is 0, but a class with probability 0 has log_p = −inf in half precision.
    return -(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(1) / math.log(2)


def strip_entropy(
    frames: Tensor, overlays: Tensor, logits: Callable[[Tensor], Tensor], *, max_batch: int = 1024
) -> Tensor:
    """Mean entropy in bits of the verdicts on `frames + overlay`, over the N overlays: (B,).

    `frames` is (B, C, H, W) and `overlays` (N, C, H, W), both in [0, 1]; the sum is neither blended nor
    clamped, so `logits` sees values in [0, 2]. `logits` maps (M, C, H, W) to (M, classes) and is called with
    M ≤ `max_batch`, overlays of several frames together. The paper's entropy is a sum over overlays, divided
    by N as in its eq. 4; the entropy of each verdict is over classes. A frame is suspect when its value lies
    below the bundle's threshold.

    Raises StageError when the shapes do not fit each other or there is no overlay.
    """
    check_frames(frames)
    check_frames(overlays, "overlays")
    if overlays.shape[1:] != frames.shape[1:] or not len(overlays):
        raise StageError(
            f"overlays: expected (N, {', '.join(map(str, frames.shape[1:]))}) with N at least 1, "
            f"got {tuple(overlays.shape)}"
        )
    if max_batch < 1:
        raise StageError(f"max_batch: expected at least 1, got {max_batch}")
    n = len(overlays)
    total = len(frames) * n
    entropies = []
    for start in range(0, total, max_batch):
        pair = torch.arange(start, min(start + max_batch, total), device=frames.device)
        verdicts = logits(frames[pair // n] + overlays[pair % n])
        if verdicts.ndim != 2 or len(verdicts) != len(pair):
            raise StageError(f"logits: expected ({len(pair)}, classes), got {tuple(verdicts.shape)}")
        entropies.append(class_entropy(verdicts))
    if not entropies:
        return frames.new_zeros(0)
    return torch.cat(entropies).view(-1, n).mean(1)
