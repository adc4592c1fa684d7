"""Frames resampled straight to the network's size: kept pixels alone, low-passed, without a reconstruction before.

This is normalised convolution (Knutsson and Westin 1993): the mask weighs the antialiased resize of
`processors.stages.resample` as well,

    picture = resized(frame · mask) / resized(mask).

If the picture has fewer pixels than the frame has kept ones, next to nothing is left to rebuild. A reconstruction at
this scale fills the remaining gaps.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor

from processors.stages.plate import TINY
from processors.stages.resample import resize
from processors.stages.shapes import check_kept, check_size

LEAST_SHARE: Final = 0.02
"""Share of a pixel's weights that kept pixels must have for the pixel to count as known. Below it, the value rests on a
single kept pixel at the edge of the reach, and an estimate from all neighbours is better.
"""


def at_scale(frames: Tensor, kept: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return pictures (B, C, height, width) of the kept pixels of `frames` (B, C, H, W) in [0, 1], and their masks.

    `kept` (B, 1, H, W) is True where a pixel was kept; the others are not read, but must be finite in frames that
    require a gradient. The mask (B, 1, height, width) is False
    where kept pixels have less than `LEAST_SHARE` of the weight; there the picture is zero. With every pixel kept the
    result is `resize`. Values stay in [0, 1], because every output is a weighted mean of kept pixels. Raises StageError
    if shapes or types do not fit, or for a size without pixels.
    """
    check_kept(frames, kept)
    check_size(height, width)
    weight = kept.to(frames.dtype)
    if not frames.requires_grad:  # on a CPU, the derivative of `nan_to_num` takes longer than all the rest
        frames = frames.nan_to_num()
    return weighed(resize(frames * weight, height, width), resize(weight, height, width))


def reach(patch: int, side: int, scaled: int) -> int:
    """Return the most pixels along a side that `patch` neighbouring pixels change, after `at_scale`.

    The side shrinks from `side` to `scaled` pixels, by a factor s ≥ 1. A pixel of the result has weights above zero
    less than s pixels around its centre. The centres in reach of a patch lie within less than patch − 1 + 2·s pixels,
    and are s pixels apart.
    """
    factor = side / scaled
    return min(scaled, math.ceil((patch - 1) / factor) + 2)


def weighed(summed: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Return the result of `at_scale` from weighted sums of kept pixels (B, C, h, w) and of the mask (B, 1, h, w)."""
    known = share >= LEAST_SHARE
    return (summed * (known / share.clamp_min(TINY))).clamp_(0, 1), known


def density(kept: Tensor, height: int, width: int) -> Tensor:
    """Return the kept pixels of each mask (B, 1, H, W) for each pixel of a picture of `height` × `width`: (B,).

    The density measures the quality of `at_scale`: below one it blurs, or shows distant pixels.
    """
    check_size(height, width)
    if kept.device.type == "cpu":
        # torch adds booleans one by one.
        return torch.tensor([np.count_nonzero(each) for each in kept.numpy()]) / (height * width)
    return kept.flatten(1).sum(1) / (height * width)
