"""The network that fills what was dropped from large frames: a small one, for every pixel of the frame goes through."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from processors.networks.onednn import convolve_relu
from processors.networks.restorer import begin_without_change, residuals

FOLD = 2
"""Sides are padded to multiples of this many pixels."""


class Filler(nn.Module):
    """From a filled frame and its mask to a better filled one; pixels that were kept pass unchanged, bit for bit.

    Every 2×2 pixels become one position with the colours and mask bits of the four, and all layers work at half the
    resolution (as `processors.networks.restorer`, without its coarser levels): a dropped pixel of a large frame has
    kept ones beside it, and what lies further away says little about it. A quarter of the restorer's products a pixel.
    Nothing depends on the frame's size or place: no window, no seam.
    """

    def __init__(self, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.kept_gain = 0.0
        """What the changes of kept pixels are multiplied by: nothing has attacked them that it would know of."""
        self.enter = nn.Conv2d(4 * FOLD**2, width, 3, padding=1)
        self.body = residuals(width, depth)
        self.leave = nn.Conv2d(width, 3 * FOLD**2, 3, padding=1)
        begin_without_change(self, self.leave)

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights: filled frames are to come in it."""
        return self.enter.weight.dtype

    def forward(self, filled: Tensor, kept: Tensor) -> Tensor:
        """Map filled RGB frames (B, 3, H, W) in [0, 1] and masks (B, 1, H, W), 1 where kept, to filled frames."""
        height, width = filled.shape[2:]
        padding = (0, -width % FOLD, 0, -height % FOLD)
        weight = kept.to(filled.dtype)
        x = torch.cat((filled - 0.5, weight), 1)
        if any(padding):
            x = F.pad(x, padding, mode="replicate")
        change = self.change(x)[:, :, :height, :width]
        return torch.addcmul(filled, change, 1 + (self.kept_gain - 1) * weight)

    def change(self, x: Tensor) -> Tensor:
        """What is to be added, (B, 3, H, W), to colours less a half and the mask, (B, 4, H, W) of even sides.

        All that has weights is here.
        """
        x = F.pixel_unshuffle(x, FOLD).contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(self.leave(self.body(convolve_relu(self.enter, x))), FOLD)
