"""The network that fills dropped pixels of large frames: a small one, because it processes every pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from processors.networks.onednn import convolve_relu
from processors.networks.restorer import begin_without_change, residuals

FOLD = 2
"""Sides are padded to multiples of this many pixels."""


class Filler(nn.Module):
    """A network that improves a filled frame by its mask; kept pixels pass unchanged, bit for bit.

    Every 2×2 pixels become one position with the colours and mask bits of the four. All layers work at half the
    resolution, as in `processors.networks.restorer` without its coarser levels. A dropped pixel of a large frame has
    kept neighbours, and distant pixels add little. The cost is a quarter of the restorer's products a pixel. The frame
    is processed as a whole: there are no windows, and no seams between them.
    """

    def __init__(self, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.kept_gain = 0.0
        """Factor of the changes to kept pixels. It is 0 because the network was trained without attacks."""
        self.enter = nn.Conv2d(4 * FOLD**2, width, 3, padding=1)
        self.body = residuals(width, depth)
        self.leave = nn.Conv2d(width, 3 * FOLD**2, 3, padding=1)
        begin_without_change(self, self.leave)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights, and of the accepted filled frames."""
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
        """Return the change (B, 3, H, W) for colours less a half and the mask, (B, 4, H, W) of even sides.

        All layers with weights are here.
        """
        x = F.pixel_unshuffle(x, FOLD).contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(self.leave(self.body(convolve_relu(self.enter, x))), FOLD)
