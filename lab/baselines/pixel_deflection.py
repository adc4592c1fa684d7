"""Pixel Deflection (Prakash et al., CVPR 2018): pixels replaced by random neighbours, then wavelet denoising.

Deflections run one after the other. Each sets a uniformly chosen pixel to the value of another one, chosen uniformly in
the square window around it. Then each of Y, Cb and Cr is denoised by BayesShrink (soft, Haar). The paper's parameters
are 100 deflections in pictures of 224×224 (a share of .002), a window of 10 pixels to each side, and σ = .04.

The paper chooses pixels by a robust activation map, which protects the object. The map needs the feature maps inside
the network, which is a closed callable here. So pixels are chosen uniformly, as in the paper's own variant without a
map. The paper does not define the scale of σ. Here it is relative to each channel's range from its smallest to its
largest value, as in the scikit-image of its time. On one common scale, σ = .04 would be mostly signal in Cb and Cr.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from processors.bundle import LUMA
from processors.stages.denoise import shrink
from schemas.errors import ConfigError


@dataclass(frozen=True)
class PixelDeflection:
    """Deflection of a `share` of the pixels (at least one) within `window` pixels, then denoising with `sigma`."""

    share: float = 0.002
    window: int = 10
    sigma: float = 0.04

    def __post_init__(self) -> None:
        if not (0 <= self.share <= 1 and self.window >= 1 and self.sigma >= 0):
            raise ConfigError(
                "pixel deflection: expected a share from 0 to 1, a window of at least 1 pixel and a sigma of at least "
                f"0, got {self.share}, {self.window} and {self.sigma}"
            )

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return the cleaned frames. See `Baseline`."""
        height, width = frames.shape[2:]
        count = max(round(self.share * height * width), 1) if self.share else 0
        return _denoised(deflect(frames, count, self.window, generator), self.sigma)


def deflect(frames: Tensor, count: int, window: int, generator: torch.Generator) -> Tensor:
    """Return frames (B, C, H, W) after `count` deflections each, in sequence: a deflected pixel may move again."""
    batch, _, height, width = frames.shape
    draws = torch.rand((4, count, batch), generator=generator, device=generator.device, dtype=torch.float64)
    draws = draws.to(frames.device)
    rows, columns = (draws[0] * height).long(), (draws[1] * width).long()
    from_rows = _near(rows, height, window, draws[2])
    from_columns = _near(columns, width, window, draws[3])
    result, every = frames.clone(), torch.arange(batch, device=frames.device)
    for row, column, from_row, from_column in zip(rows, columns, from_rows, from_columns, strict=True):
        result[every, :, row, column] = result[every, :, from_row, from_column]
    return result


def _near(centre: Tensor, length: int, window: int, draw: Tensor) -> Tensor:
    low, high = (centre - window).clamp_min(0), (centre + window).clamp_max(length - 1)
    return low + (draw * (high - low + 1)).long()


def _denoised(frames: Tensor, sigma: float) -> Tensor:
    if frames.shape[1] != 3:
        return _shrunk(frames, sigma).clamp(0, 1)
    forward = ycbcr().to(frames)
    channels = torch.einsum("kc,bchw->bkhw", forward, frames)
    return torch.einsum("ck,bkhw->bchw", forward.inverse(), _shrunk(channels, sigma)).clamp(0, 1)


def _shrunk(channels: Tensor, sigma: float) -> Tensor:
    lowest, highest = channels.amin((2, 3), keepdim=True), channels.amax((2, 3), keepdim=True)
    span = (highest - lowest).clamp_min(torch.finfo(channels.dtype).eps)
    return lowest + span * shrink((channels - lowest) / span, "bayes", sigma)


def ycbcr() -> Tensor:
    """Return the matrix (3, 3) from red, green and blue to Y, Cb and Cr (JFIF), without the offset of the last two."""
    # Cb and Cr keep a mean of 0: a wavelet's details are independent of a constant.
    luma = torch.tensor(LUMA, dtype=torch.float64)
    red, _, blue = torch.eye(3, dtype=torch.float64)
    return torch.stack((luma, (blue - luma) / (2 * (1 - luma[2])), (red - luma) / (2 * (1 - luma[0]))))
