"""Differentiable stand-ins for defences without a useful gradient, for the backward pass of `bpda`.

JPEG follows Shin and Song 2017: the codec's steps with its rounding replaced by ⌊c⌉ + (c − ⌊c⌉)³. The derivative of
this expression is small where a coefficient is about to vanish, and large where it is about to change. Colours are
averaged over 2×2 pixels and enlarged again. With the identity instead, most of a small change would be spent on detail
that the codec removes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.baselines import Baseline, Shield
from lab.baselines.contract import from_blocks, to_blocks
from lab.baselines.pixel_deflection import ycbcr
from processors.stages.paper import dct_matrix
from processors.stages.preprocess.jpeg import tables
from schemas.errors import StageError

_MIDDLE = 128 / 255


def jpeg_stand_in(quality: int) -> Baseline:
    """Return the stand-in of JPEG at `quality` with colour at half resolution, for pictures (B, 1 or 3, H, W)."""
    luma, colour = (table / 255 for table in tables(quality))

    def smooth(frames: Tensor, generator: torch.Generator) -> Tensor:
        if frames.shape[1] == 1:
            return (_coded(frames - _MIDDLE, luma) + _MIDDLE).clamp(0, 1)
        if frames.shape[1] != 3:
            raise StageError(f"jpeg: expected frames (B, 1 or 3, H, W), got {tuple(frames.shape)}")
        height, width = frames.shape[2:]
        forward = ycbcr().to(frames)
        planes = torch.einsum("kc,bchw->bkhw", forward, frames)
        light = _coded(planes[:, :1] - _MIDDLE, luma) + _MIDDLE
        whole = F.pad(planes[:, 1:], (0, width % 2, 0, height % 2), mode="replicate")
        small = _coded(F.avg_pool2d(whole, 2), colour)
        large = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)[:, :, :height, :width]
        return torch.einsum("ck,bkhw->bchw", forward.inverse(), torch.cat((light, large), 1)).clamp(0, 1)

    return smooth


def shield_stand_in(shield: Shield) -> Baseline:
    """Return the stand-in of Shield: each block has the quality that Shield would draw for it."""
    smooth = [jpeg_stand_in(quality) for quality in shield.qualities]

    def blockwise(frames: Tensor, generator: torch.Generator) -> Tensor:
        choice = shield.choice(frames, generator)
        result = torch.zeros_like(frames)
        for number, each in enumerate(smooth):
            result = torch.where(choice == number, each(frames, generator), result)
        return result

    return blockwise


def _coded(planes: Tensor, steps: Tensor) -> Tensor:
    dct, steps = dct_matrix().to(planes), steps.to(planes)
    counts = dct @ to_blocks(planes) @ dct.T / steps
    nearest = counts.detach().round()
    return from_blocks(dct.T @ ((nearest + (counts - nearest) ** 3) * steps) @ dct, *planes.shape[2:])
