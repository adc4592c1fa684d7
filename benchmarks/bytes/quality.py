"""How near a picture that the server shows is to the camera's."""

from __future__ import annotations

from statistics import fmean
from typing import Final, NamedTuple

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from processors.modes import Mode, usual_denoise
from processors.stages.at_scale import at_scale
from processors.stages.denoise import denoise
from processors.stages.plate import reconstruct_plate
from processors.stages.reconstruct import reconstruct
from schemas.pixels.masks import Mask
from schemas.pixels.packing import Picture

PAGE_SIDE: Final = 384
"""Pixels of the longer side of a picture on the pages: `process --preview-side`."""


class Quality(NamedTuple):
    """Of one shown picture, against the camera's, on the scale of 8 bits."""

    psnr_db: float
    """Of the picture in its own size."""
    ssim: float
    """The same: mean structural similarity (Wang et al. 2004), Gaussian windows of σ = 1.5, over the three colours."""
    page_psnr_db: float
    """Of the smaller picture on the pages."""

    @classmethod
    def mean(cls, several: list[Quality]) -> Quality:
        """The mean of each figure, decibels too."""
        return cls(*(fmean(figures) for figures in zip(*several, strict=True)))


@torch.inference_mode()
def rebuilt(pixels: Picture, kept: Mask, mode: Mode) -> Picture:
    """What stands for `pixels` (H, W, C) of which `kept` (H, W) are known, in 8 bits."""
    settings = usual_denoise(mode)
    filled = reconstruct(_frames(pixels), _masks(kept), mode)
    return _picture(denoise(filled, settings.method, settings.sigma))


@torch.inference_mode()
def on_page(pixels: Picture, kept: Mask) -> Picture:
    """The picture on the pages of frames that nobody has rebuilt whole: `processors.pipeline.Pipeline.show`."""
    height, width = kept.shape
    shrunk = PAGE_SIDE / max(PAGE_SIDE, height, width)
    size = max(1, round(height * shrunk)), max(1, round(width * shrunk))
    return _picture(reconstruct_plate(*at_scale(_frames(pixels), _masks(kept), *size)))


def quality(picture: Picture, pixels: Picture, kept: Mask, mode: Mode = "default") -> Quality:
    """Of the known `pixels` (H, W, C) of a `picture` once they are rebuilt."""
    return compared(picture, rebuilt(pixels, kept, mode), on_page(pixels, kept))


def whole_quality(picture: Picture, shown: Picture) -> Quality:
    """Of a picture that needs no rebuilding."""
    return compared(picture, shown, on_page(shown, np.ones(shown.shape[:2], dtype=np.bool_)))


def compared(picture: Picture, shown: Picture, page: Picture) -> Quality:
    """Of what is `shown`, and what stands on the `page`, for a `picture`."""
    smaller = on_page(picture, np.ones(picture.shape[:2], dtype=np.bool_))
    similar = structural_similarity(  # type: ignore[no-untyped-call]  # not annotated
        picture, shown, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return Quality(psnr_db(picture, shown), float(similar), psnr_db(smaller, page))


def psnr_db(picture: Picture, shown: Picture) -> float:
    """Peak signal to noise ratio of two pictures in 8 bits, at most 78 dB."""
    error = float(np.mean((shown.astype(np.float32) - picture.astype(np.float32)) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 1e-3)))


def _frames(pixels: Picture) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def _masks(kept: Mask) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(kept))[None, None]


def _picture(frame: Tensor) -> Picture:
    return (frame[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().contiguous().numpy()
