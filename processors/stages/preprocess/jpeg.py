"""JPEG as a defence (Dziugaite et al. 2016; Guo et al. 2018): the codec's losses, batched, without its entropy coding.

Baseline JPEG in libjpeg's variant: JFIF's Y, Cb and Cr rounded to 8 bits, and colour at half resolution with 4:2:0.
Then come the example tables of ITU-T T.81 scaled by the quality, 8×8 DCT, and rounding. On the way back, colour is
upsampled bilinearly. A pixel may differ from libjpeg's only if a coefficient lies on a rounding edge: libjpeg computes
in integers.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from processors.stages.preprocess.blocks import SIDE, Quantiser, quantised, quantiser
from processors.stages.preprocess.contract import Place, Stage, StageSettings
from schemas.errors import StageError

Subsampling = Literal["4:4:4", "4:2:0"]

# ITU-T T.81, tables K.1 and K.2.
_LUMA: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_COLOUR: Final = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
# JFIF 1.02: rows of Y, Cb, Cr, and back.
_TO_YCC: Final = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_TO_RGB: Final = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))
_MIDDLE: Final = 128


class Jpeg(StageSettings):
    """The settings of the stage: `quality` on libjpeg's scale, `subsampling` of the colours."""

    stage: Literal["jpeg"]
    quality: Annotated[int, Field(ge=1, le=100)]
    """Quality on libjpeg's scale."""
    subsampling: Subsampling = "4:2:0"
    """Subsampling of the colours."""

    def load(self, place: Place) -> Stage:
        """See `StageSettings`."""
        steps = quantisers(self.quality, place.device)
        return Stage(self.stage, partial(_run, steps, self.subsampling), differentiable=False)


class Quantisers(NamedTuple):
    """The quantisers of luma, of colour, and of one luma channel with two of colour."""

    luma: Quantiser
    colour: Quantiser
    all: Quantiser


def quantisers(quality: int, device: torch.device) -> Quantisers:
    """Return the quantisers of a quality from 1 to 100."""
    luma, colour = tables(quality)
    every = torch.stack((luma, colour, colour))
    return Quantisers(*(quantiser(steps, device) for steps in (luma, colour, every)))


def compress(pictures: Tensor, quality: int, subsampling: Subsampling = "4:2:0") -> Tensor:
    """Pass pictures (B, 1 or 3, H, W) in [0, 1], rounded to 8 bits and clamped, through the codec.

    Their gradient is zero. Raises StageError for another number of channels.
    """
    return _run(quantisers(quality, pictures.device), subsampling, pictures, None)


def _run(steps: Quantisers, subsampling: Subsampling, pictures: Tensor, seeds: Tensor | None) -> Tensor:
    if pictures.shape[1] not in (1, 3):
        raise StageError(f"jpeg: expected pictures of 1 or 3 channels, got {pictures.shape[1]}")
    height, width = pictures.shape[2:]
    levels = (pictures * 255).round().clamp(0, 255)
    if pictures.shape[1] == 1:
        return _coded(levels, steps.luma) / 255
    ycc = _mixed(levels, _TO_YCC)
    ycc = torch.cat((ycc[:, :1], ycc[:, 1:] + _MIDDLE), 1).round().clamp(0, 255)
    if subsampling == "4:4:4":
        planes = _coded(ycc, steps.all)
    else:
        chroma = _upsampled(_coded(_downsampled(ycc[:, 1:]), steps.colour), height, width)
        planes = torch.cat((_coded(ycc[:, :1], steps.luma), chroma), 1)
    rgb = _mixed(torch.cat((planes[:, :1], planes[:, 1:] - _MIDDLE), 1), _TO_RGB)
    return rgb.round().clamp(0, 255) / 255


def _coded(planes: Tensor, steps: Quantiser) -> Tensor:
    return (quantised(planes - _MIDDLE, steps) + _MIDDLE).round().clamp(0, 255)


def _mixed(planes: Tensor, rows: tuple[tuple[float, ...], ...]) -> Tensor:
    """Mix planes (B, 3, H, W) by the rows of a 3×3 matrix; in sums, which no device computes coarsely."""
    mixed = [sum((weight * planes[:, i] for i, weight in enumerate(row)), planes.new_zeros(())) for row in rows]
    return torch.stack(mixed, 1)


def _downsampled(planes: Tensor) -> Tensor:
    """Return means of 2×2 pixels of planes (B, C, H, W), rounded alternately down and up as in libjpeg.

    The width becomes a whole number of blocks: libjpeg extends lines before it takes means, and columns after.
    """
    whole = F.pad(planes, (0, -planes.shape[3] % (2 * SIDE), 0, planes.shape[2] % 2), mode="replicate")
    means = F.avg_pool2d(whole, 2)
    bias = 0.25 + 0.25 * (torch.arange(means.shape[3], device=planes.device) % 2)
    return (means + bias).floor()


def _upsampled(planes: Tensor, height: int, width: int) -> Tensor:
    """Return planes at twice the size, each new pixel ¾ of the nearer and ¼ of the farther along both sides."""
    shown = planes[..., : (width + 1) // 2]
    larger = F.interpolate(shown, scale_factor=2, mode="bilinear", align_corners=False)
    return larger.round()[:, :, :height, :width]


def tables(quality: int) -> tuple[Tensor, Tensor]:
    """Return the steps (8, 8) of luma and of colour for a quality from 1 to 100, on the scale 0–255."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    luma, colour = (
        torch.tensor([[min(max((step * percent + 50) // 100, 1), 255) for step in row] for row in table])
        for table in (_LUMA, _COLOUR)
    )
    return luma.float(), colour.float()
