"""A taught classifier: features of EfficientNet-Lite0 at one depth, averaged on a grid, and a linear head.

`lab.teach` chooses depth and grid by cross-validation. Early blocks keep shapes and digits that the last layer has
discarded; a grid keeps their places.
"""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from processors.networks.efficientnet_lite import CHANNELS, EfficientNetLite0

LAST: Final = len(CHANNELS)
"""The depth of the last layer: all blocks and the convolution after them."""
_FLAT: Final = 0.06
"""Addend of a picture's deviation: without it, the noise of a uniform picture would be amplified."""
_SPREAD: Final = 0.5
"""Deviation of a picture after the contrast normalisation: about the deviation of a photograph."""


class Taught(nn.Module):
    """The network for normalised pictures (B, 3, H, W): logits (B, classes).

    The depth is a number of blocks or `LAST`. The maps of this depth are averaged on a grid × grid. With `contrast`,
    every picture is first normalised to the same mean and deviation.
    """

    def __init__(self, classes: int, depth: int, grid: int, contrast: bool = False) -> None:
        """Raises ValueError for a depth outside 1 to `LAST`, or a grid below 1."""
        super().__init__()
        if not 1 <= depth <= LAST or grid < 1:
            raise ValueError(f"depth: expected 1 to {LAST} and a grid from 1 on, got {depth} and {grid}")
        whole = EfficientNetLite0(1)
        self.depth, self.grid, self.contrast = depth, grid, contrast
        self.stem = whole.stem
        self.blocks = nn.Sequential(*list(whole.blocks)[:depth])
        self.head = whole.head if depth == LAST else None
        self.classifier = nn.Linear(CHANNELS[depth - 1] * grid**2, classes)

    def lower(self, x: Tensor, cut: int) -> Tensor:
        """Return the maps (B, channels, h, w) after `cut` blocks."""
        x = self.stem(contrasted(x) if self.contrast else x)
        for block in list(self.blocks)[:cut]:
            x = block(x)
        return x

    def upper(self, x: Tensor, cut: int) -> Tensor:
        """Return the logits (B, classes) for the result of `lower`."""
        for block in list(self.blocks)[cut:]:
            x = block(x)
        if self.head is not None:
            x = self.head(x)
        logits: Tensor = self.classifier(averaged(x, self.grid))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes)."""
        return self.upper(self.lower(x, len(self.blocks)), len(self.blocks))


def maps(network: EfficientNetLite0, x: Tensor, depths: set[int]) -> dict[int, Tensor]:
    """Return the maps (B, channels, h, w) at these depths for pictures (B, 3, H, W)."""
    found: dict[int, Tensor] = {}
    x = network.stem(x)
    for number, block in enumerate(network.blocks, 1):
        x = block(x)
        if number in depths:
            found[number] = x
    if LAST in depths:
        found[LAST] = network.head(x)
    return found


def averaged(found: Tensor, grid: int) -> Tensor:
    """Average maps (B, channels, h, w) on a grid: (B, channels · grid²)."""
    if grid == 1:
        return found.mean((2, 3))
    return F.adaptive_avg_pool2d(found, grid).flatten(1)


def contrasted(x: Tensor) -> Tensor:
    """Normalise each picture of (B, 3, H, W) to mean 0 and deviation `_SPREAD` over all its values."""
    mean = x.mean((1, 2, 3), keepdim=True)
    away = x - mean
    deviation = away.square().mean((1, 2, 3), keepdim=True).sqrt()
    return away / (deviation + _FLAT) * _SPREAD
