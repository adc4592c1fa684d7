"""Rand (Xie et al., ICLR 2018): each picture resized to a random side and padded with zeros at a random place.

The paper resizes 299 pixels to 299–330 and pads to 331, which the network then sees. Here the network's own size is
what is padded to, so a picture shrinks to at least 299/331 of it: the same ratio of picture to padding, each whole
number of pixels from there to one below the full size equally likely. The paper's interpolation is its framework's
(nearest); here it is bilinear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from schemas.errors import ConfigError


@dataclass(frozen=True)
class Rand:
    """Shrink to at least `smallest` of each side, then pad; differentiable."""

    smallest: float = 299 / 331

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ConfigError(f"rand: expected a smallest size above 0 and at most 1, got {self.smallest}")

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """See `Baseline`; height and width shrink by the same number of pixels in a square picture, else in ratio."""
        batch, _, height, width = frames.shape
        draws = torch.rand((3, batch), generator=generator, device=generator.device, dtype=torch.float64)
        least = min(math.ceil(self.smallest * height), height - 1)
        rows = (least + (draws[0] * (height - least)).long()).clamp_min(1)
        columns = (rows * width).div(height, rounding_mode="floor").clamp_min(1)
        tops = (draws[1] * (height - rows + 1)).long()
        lefts = (draws[2] * (width - columns + 1)).long()
        result = torch.zeros_like(frames)
        for side in sorted(set(rows.tolist())):
            chosen = (rows == side).nonzero()[:, 0]
            size = (side, int(columns[chosen[0]]))
            small = F.interpolate(frames[chosen.to(frames.device)], size, mode="bilinear", align_corners=False)
            padded = [
                F.pad(picture, (left, width - size[1] - left, top, height - size[0] - top))
                for picture, top, left in zip(small, tops[chosen].tolist(), lefts[chosen].tolist(), strict=True)
            ]
            result = result.index_copy(0, chosen.to(frames.device), torch.stack(padded))
        return result
