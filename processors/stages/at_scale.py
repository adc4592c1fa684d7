"""Frames straight to the size that the network looks at: kept pixels alone, low-passed, and nothing rebuilt on the way.

A resampling that knows which pixels are there, normalised convolution once more (Knutsson and Westin 1993): what the
antialiased resize of `processors.stages.resample` would weigh is weighed by the mask too,

    picture = resized(frame · mask) / resized(mask).

Where the picture has fewer pixels than the frame has kept ones, there is next to nothing left to rebuild. What a mask
still leaves out is for a reconstruction at this scale.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from processors.stages.plate import TINY
from processors.stages.resample import resize
from processors.stages.shapes import check_kept, check_size

LEAST_SHARE: Final = 0.02
"""Share of the weights below a pixel that kept pixels must have, for the pixel to count as known: less is a single kept
pixel at the edge of the reach, and a guess from all around is better."""


def at_scale(frames: Tensor, kept: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pictures (B, C, height, width) of the kept pixels of `frames` (B, C, H, W) in [0, 1], and what they show.

    `kept` (B, 1, H, W) is True where a pixel was kept; what stands in the others is not read. The second result
    (B, 1, height, width) is False where kept pixels have less than `LEAST_SHARE` of the weight; there the picture is
    zero. With every pixel kept it is `resize`. Values stay in [0, 1], for every output is a weighted mean of kept
    pixels. Raises StageError when shapes or types do not fit, or for a size without pixels.
    """
    check_kept(frames, kept)
    check_size(height, width)
    weight = kept.to(frames.dtype)
    both = resize(torch.cat((frames.nan_to_num() * weight, weight), 1), height, width)
    return weighed(both[:, :-1], both[:, -1:])


def weighed(summed: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """What `at_scale` gives, of the weighted sums (B, C, h, w) of kept pixels and of the mask (B, 1, h, w)."""
    known = share >= LEAST_SHARE
    return (summed / share.clamp_min(TINY) * known).clamp(0, 1), known


def density(kept: Tensor, height: int, width: int) -> Tensor:
    """Kept pixels of each mask (B, 1, H, W) for each pixel of a picture of `height` × `width`: (B,).

    What says how well `at_scale` does: with fewer than one it blurs, or takes what it shows from afar.
    """
    check_size(height, width)
    if kept.device.type == "cpu":
        # torch adds booleans up one by one.
        return torch.tensor([np.count_nonzero(each) for each in kept.numpy()]) / (height * width)
    return kept.flatten(1).sum(1) / (height * width)
