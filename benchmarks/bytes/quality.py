"""The similarity between the picture that the server displays and the camera's."""

from __future__ import annotations

from statistics import fmean
from typing import Final, NamedTuple

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from processors.stages.at_scale import at_scale
from processors.stages.denoise import denoise
from processors.stages.modes import Mode, usual_denoise
from processors.stages.plate import reconstruct_plate
from processors.stages.reconstruct import reconstruct
from schemas.pixels.masks import Mask
from schemas.pixels.packing import Picture

PAGE_SIDE: Final = 384
"""Pixels of the longer side of a picture on the pages: `process --preview-side`."""


class Quality(NamedTuple):
    """Quality figures of one displayed picture against the camera's, on the 8-bit scale."""

    psnr_db: float
    """PSNR of the picture in its full size."""
    ssim: float
    """Mean structural similarity in full size (Wang et al. 2004): Gaussian windows of σ = 1.5, over the three colours.
    """
    page_psnr_db: float
    """PSNR of the smaller picture on the pages."""

    @classmethod
    def mean(cls, several: list[Quality]) -> Quality:
        """Return the mean of each figure, decibels included."""
        return cls(*(fmean(figures) for figures in zip(*several, strict=True)))


@torch.inference_mode()
def rebuilt(pixels: Picture, kept: Mask, mode: Mode) -> Picture:
    """Rebuild `pixels` (H, W, C), of which `kept` (H, W) are known, in 8 bits."""
    settings = usual_denoise(mode)
    filled = reconstruct(_frames(pixels), _masks(kept), mode)
    return _picture(denoise(filled, settings.method, settings.sigma))


@torch.inference_mode()
def on_page(pixels: Picture, kept: Mask) -> Picture:
    """Return the picture on the pages of a frame not rebuilt in full size: `processors.pipeline.Pipeline.show`."""
    height, width = kept.shape
    shrunk = PAGE_SIDE / max(PAGE_SIDE, height, width)
    size = max(1, round(height * shrunk)), max(1, round(width * shrunk))
    return _picture(reconstruct_plate(*at_scale(_frames(pixels), _masks(kept), *size)))


def quality(picture: Picture, pixels: Picture, kept: Mask, mode: Mode = "default") -> Quality:
    """Return the quality of a `picture` rebuilt from its known `pixels` (H, W, C)."""
    return compared(picture, rebuilt(pixels, kept, mode), on_page(pixels, kept))


def whole_quality(picture: Picture, shown: Picture) -> Quality:
    """Return the quality of a picture that needs no reconstruction."""
    return compared(picture, shown, on_page(shown, np.ones(shown.shape[:2], dtype=np.bool_)))


def compared(picture: Picture, shown: Picture, page: Picture) -> Quality:
    """Compare `picture` with the full-size picture `shown` and with the smaller picture `page`."""
    smaller = on_page(picture, np.ones(picture.shape[:2], dtype=np.bool_))
    similar = structural_similarity(  # type: ignore[no-untyped-call]  # not annotated
        picture, shown, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return Quality(psnr_db(picture, shown), float(similar), psnr_db(smaller, page))


def psnr_db(picture: Picture, shown: Picture) -> float:
    """Return the peak signal-to-noise ratio of two 8-bit pictures, at most 78 dB."""
    error = float(np.mean((shown.astype(np.float32) - picture.astype(np.float32)) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 1e-3)))


def _frames(pixels: Picture) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def _masks(kept: Mask) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(kept))[None, None]


def _picture(frame: Tensor) -> Picture:
    return (frame[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().contiguous().numpy()
