"""Wavelet shrinkage: small Haar coefficients are noise and are removed (SUPER-IoT, section IV-D).

Both rules equal scikit-image's `denoise_wavelet`, channel by channel, for the same σ and level count.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from processors.stages.modes import SIGMA, Method
from processors.stages.shapes import check_frames
from processors.stages.wavelet import analyse, synthesise
from schemas.errors import StageError

# The 75 % quantile of the standard normal distribution: the median of |noise| in units of σ.
NORMAL_QUARTILE = 0.6744897501960817


def denoise(frames: Tensor, method: Method = "bayes", sigma: float | None = SIGMA, levels: int | None = None) -> Tensor:
    """Apply `shrink` and clamp to [0, 1]: frames (B, C, H, W) to the same shape."""
    return shrink(frames, method, sigma, levels).clamp(0, 1)


def shrink(frames: Tensor, method: Method = "bayes", sigma: float | None = None, levels: int | None = None) -> Tensor:
    """Threshold the detail coefficients of each frame, channel and sub-band; frames (B, C, H, W) to the same.

    `bayes`: BayesShrink, a soft threshold σ² / σ_x for each sub-band, with σ_x² = max(mean(d²) − σ², machine
    ε) (Chang, Yu and Vetterli 2000). `visu`: VisuShrink, a hard threshold σ·√(2 ln(H·W)) (Donoho and
    Johnstone 1994). `sigma` is the standard deviation of the noise on the scale of the frames; None estimates
    it for each frame and channel by `estimated_sigma`, 0 leaves the frames unchanged. `levels` is None for
    scikit-image's choice, which spares the three coarsest scales: max(⌊log2 min(H, W)⌋ − 3, 1).

    Raises StageError for a negative σ, fewer than one level or an unknown method.
    """
    check_frames(frames)
    if method not in ("bayes", "visu"):
        raise StageError(f"method: expected 'bayes' or 'visu', got {method!r}")
    if sigma is not None and not 0 <= sigma < math.inf:
        raise StageError(f"sigma: expected None or a finite number that is not negative, got {sigma}")
    height, width = frames.shape[2:]
    if levels is None:
        levels = max(min(height, width).bit_length() - 4, 1)
    if levels < 1:
        raise StageError(f"levels: expected at least 1, got {levels}")
    if sigma == 0:
        return frames
    approximation, details = analyse(frames, levels)
    if sigma is None:
        noise = estimated_sigma(details[0].diagonal)
    else:
        noise = frames.new_full((1, 1, 1, 1), sigma)

    def thresholded(band: Tensor) -> Tensor:
        if method == "visu":
            return band.masked_fill(band.abs() < noise * math.sqrt(2 * math.log(height * width)), 0)
        variance = noise.square()
        signal = band.square().mean((2, 3), keepdim=True) - variance
        threshold = variance / signal.clamp_min(torch.finfo(band.dtype).eps).sqrt()
        return band - torch.clamp(band, -threshold, threshold)

    kept = [
        replace(
            level,
            horizontal=thresholded(level.horizontal),
            vertical=thresholded(level.vertical),
            diagonal=thresholded(level.diagonal),
        )
        for level in details
    ]
    return synthesise(approximation, kept)


def estimated_sigma(diagonal: Tensor) -> Tensor:
    """Noise σ of each frame and channel, (B, C, 1, 1), from the finest diagonal details (B, C, h, w).

    The median of |d| over the coefficients that are not exactly zero, divided by the normal quartile (Donoho
    and Johnstone 1994, section 4.2); 0 where all are zero.
    """
    magnitude = diagonal.abs().flatten(2).sort(dim=2).values
    count = magnitude.shape[2]
    zeros = (magnitude == 0).sum(2, keepdim=True)
    low = (zeros + (count - zeros - 1).clamp_min(0) // 2).clamp_max(count - 1)
    high = (zeros + (count - zeros) // 2).clamp_max(count - 1)
    median = (magnitude.gather(2, low) + magnitude.gather(2, high)) / 2
    return (median / NORMAL_QUARTILE)[..., None]
