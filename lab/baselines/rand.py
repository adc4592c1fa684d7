"""Rand (Xie et al., ICLR 2018): each picture resized to a random side and padded with zeros at a random place.

The paper resizes 299 pixels to 299–330 and pads to 331, the network's input size. Here the picture is padded to the
network's own size, so it shrinks to at least 299/331 of that. The ratio of picture to padding is the same. Each whole
number of pixels from there to one below the full size is equally likely. The paper uses its framework's interpolation
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
    """Shrinking to at least `smallest` of each side, then padding; differentiable."""

    smallest: float = 299 / 331

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ConfigError(f"rand: expected a smallest size above 0 and at most 1, got {self.smallest}")

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return the resized and padded frames. See `Baseline`.

        Both sides of a square picture shrink by the same number of pixels. Otherwise they shrink in proportion.
        """
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
