"""JPEG compression as a defence (Dziugaite et al. 2016; Guo et al. 2018): the plain codec, by Pillow."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from schemas.errors import ConfigError, StageError


@dataclass(frozen=True)
class Jpeg:
    """Compression and decompression at Pillow's `quality` 1–95, with colour at half resolution (4:2:0)."""

    quality: int

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise ConfigError(f"jpeg: expected a quality from 1 to 95, got {self.quality}")

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return the decoded frames. See `Baseline`. The generator is not used."""
        return jpeg(frames, self.quality)


def jpeg(frames: Tensor, quality: int) -> Tensor:
    """Return frames (B, 1 or 3, H, W) in [0, 1], rounded to 8 bits, after the codec.

    Raises StageError for other shapes.
    """
    if frames.ndim != 4 or frames.shape[1] not in (1, 3):
        raise StageError(f"jpeg: expected frames (B, 1 or 3, H, W), got {tuple(frames.shape)}")
    pictures = (frames * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    decoded = np.empty_like(pictures)
    for picture, place in zip(pictures, decoded, strict=True):
        place[:] = _round_trip(picture, quality)
    return torch.from_numpy(decoded).to(frames.device).permute(0, 3, 1, 2).to(frames.dtype) / 255


def _round_trip(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], quality: int) -> object:
    grey = picture.shape[2] == 1
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if grey else picture).save(buffer, "JPEG", quality=quality)
    buffer.seek(0)
    with Image.open(buffer) as image:
        decoded = np.asarray(image)
    return decoded[..., None] if grey else decoded
