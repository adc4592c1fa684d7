"""Filling dropped pixels without training: normalised convolution, then a few steps towards the thin plate.

Normalised convolution is Knutsson and Westin's (1993); the plate passes through the kept pixels. All steps before the
last clamp are linear in the kept pixels of a channel. A frame's result does not depend on the rest of the batch. The
learned reconstruction starts from this result.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from processors.stages.shapes import check_kept

# Chosen for the highest PSNR on training pictures that no network was trained on.
SIGMA = 0.56
PLATE_STEPS = 3
PLATE_LOWEST = 3.0
# The discrete Laplacian's eigenvalues lie in [−8, 0]; those of its square lie in [0, 64].
PLATE_HIGHEST = 64.0

STRIP_PIXELS = 1 << 15
"""Number of pixels that a CPU fills at a time: more exceed the processor's caches."""

TINY = 1e-30
"""If no kept pixel is in reach, 0 / TINY is 0; elsewhere the weights are far larger."""


def reconstruct_plate(
    frames: Tensor,
    kept: Tensor,
    *,
    sigma: float = SIGMA,
    steps: int = PLATE_STEPS,
    lowest: float = PLATE_LOWEST,
) -> Tensor:
    """Fill the dropped pixels of `frames` (B, C, H, W) in [0, 1], where `kept` (B, 1, H, W) is False.

    A normalised convolution with a 3×3 Gaussian of `sigma` pixels, then `steps` towards the thin plate. Kept pixels
    pass unchanged and values of dropped ones are not read; filled ones lie in [0, 1]. Any size and any mask are valid:
    a frame without a kept pixel becomes black. Raises StageError if shapes or types do not fit.
    """
    check_kept(frames, kept)
    if _asks(frames):
        if bool(kept.all()):
            return frames.nan_to_num().clamp(0, 1)
        rows = max(1, STRIP_PIXELS // (len(frames) * frames.shape[3]))
        if rows < frames.shape[2] and _within_reach(kept):
            return _in_strips(frames, kept, rows, sigma, steps, lowest)
    return _filled(frames, kept, sigma, steps, lowest)


def _filled(frames: Tensor, kept: Tensor, sigma: float, steps: int, lowest: float) -> Tensor:
    # Products, not selections: selections branch for every pixel and take ten times as long on the CPU.
    weight = kept.to(frames.dtype)
    free = 1 - weight
    weighted = frames.nan_to_num() * weight
    start = torch.addcmul(weighted, _normalised_convolution(weighted, weight, math.exp(-0.5 / sigma**2)), free)
    return _towards_thin_plate(start, free, steps, lowest).clamp(0, 1)


def _in_strips(frames: Tensor, kept: Tensor, rows: int, sigma: float, steps: int, lowest: float) -> Tensor:
    """Apply `_filled` to this many rows at a time, with a margin of its reach: the results stay in the cache."""
    margin = 2 * steps + 1
    height = frames.shape[2]
    parts = []
    for first in range(0, height, rows):
        start, end = max(0, first - margin), min(height, first + rows + margin)
        around = _filled(frames[:, :, start:end], kept[:, :, start:end], sigma, steps, lowest)
        parts.append(around[:, :, first - start : min(height, first + rows) - start])
    return torch.cat(parts, 2)


def _within_reach(kept: Tensor) -> bool:
    """Return whether every pixel has a kept one among the nine around it: no coarser scale is needed then."""
    rows = kept.clone()
    rows[:, :, 1:] |= kept[:, :, :-1]
    rows[:, :, :-1] |= kept[:, :, 1:]
    around = rows.clone()
    around[..., 1:] |= rows[..., :-1]
    around[..., :-1] |= rows[..., 1:]
    return bool(around.all())


def _normalised_convolution(weighted: Tensor, weight: Tensor, side: float) -> Tensor:
    """Return (g ∗ weighted) / (g ∗ weight) with the separable kernel g = (side, 1, side).

    A pixel without a kept one in reach gets its value from the same result at half the resolution, recursively.
    """
    weighted, weight = _blur(weighted, side), _blur(weight, side)
    near = weighted / weight.clamp_min(TINY)
    height, width = weight.shape[2:]
    if height * width == 1 or (_asks(weight) and bool(weight.amin() > 0)):
        return near
    halves = [F.avg_pool2d(x, 2, ceil_mode=True) for x in (weighted, weight)]
    coarse = _normalised_convolution(halves[0], halves[1], side)
    far = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
    return torch.where(weight > 0, near, far[:, :, :height, :width])


def _asks(x: Tensor) -> bool:
    """Return whether to check for an early exit: on a GPU the check takes longer, and a compiler cannot make it."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _blur(x: Tensor, side: float) -> Tensor:
    padded = F.pad(x, (1, 1, 0, 0))
    rows = (padded[..., :-2] + padded[..., 2:]).mul_(side).add_(x)
    padded = F.pad(rows, (0, 0, 1, 1))
    return (padded[:, :, :-2] + padded[:, :, 2:]).mul_(side).add_(rows)


def _towards_thin_plate(filled: Tensor, free: Tensor, steps: int, lowest: float) -> Tensor:
    """Lower the bending energy Σ(∇²f)² over the pixels where `free` (B, 1, H, W) is 1, the others held.

    Chebyshev semi-iteration: the step sizes are the reciprocal roots of the Chebyshev polynomial on [`lowest`, 64]. Its
    value is at most 1 on all of [0, 64]: no mask makes it diverge for `steps` up to about a dozen, because rounding
    grows with the partial products. Stopping after a few steps leaves the smooth part of the first guess, which
    measures better than the exact plate.
    """
    middle, half = (PLATE_HIGHEST + lowest) / 2, (PLATE_HIGHEST - lowest) / 2
    for i in range(steps):
        root = middle + half * math.cos(math.pi * (2 * i + 1) / (2 * steps))
        filled = torch.addcmul(filled, _laplacian(_laplacian(filled)), free, value=-1 / root)
    return filled


def _laplacian(x: Tensor) -> Tensor:
    """Return the 5-point Laplacian with the edge pixels repeated outside, which keeps it symmetric."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    result = padded[:, :, :-2, 1:-1] + padded[:, :, 2:, 1:-1]
    result += padded[:, :, 1:-1, :-2]
    result += padded[:, :, 1:-1, 2:]
    return result.sub_(x, alpha=4)
