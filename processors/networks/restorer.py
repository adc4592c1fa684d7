"""The network of the learned reconstruction: a small U-Net on frames folded 2×2, for frames of any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from processors.networks.onednn import convolve_add, convolve_relu

MULTIPLE = 8
"""Sides are padded to multiples of this many pixels: the fold and two halvings."""


class Restores(Protocol):
    """A function that restores frames: a `Restorer`, or the same network in another runtime than torch."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of the computation, and of the filled frames."""

    def __call__(self, filled: Tensor, kept: Tensor) -> Tensor:
        """See `Restorer.forward`."""


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return convolve_add(self.second, convolve_relu(self.first, x), x)


def residuals(width: int, depth: int) -> nn.Sequential:
    """Return `depth` residual blocks of two 3×3 convolutions, (B, width, H, W) to the same."""
    return nn.Sequential(*(_Residual(width) for _ in range(depth)))


def begin_without_change(network: nn.Module, leave: nn.Conv2d) -> None:
    """Set the weights of the last layer `leave` and all biases to zero: the network then returns the filled frame."""
    nn.init.zeros_(leave.weight)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)


class Restorer(nn.Module):
    """A network from a filled frame and its mask to the clean frame (a U-Net: Ronneberger et al. 2015).

    Every 2×2 pixels become one position with the colours and mask bits of the four: most of the work is done at half
    the resolution. Three levels of residual blocks work at 1/2, 1/4 and 1/8 of it; their result is added to the filled
    frame. The frame is processed as a whole: there are no windows, and no seams between them.
    """

    def __init__(self, widths: tuple[int, int, int] = (48, 64, 96), depths: tuple[int, ...] = (1, 1, 2, 1, 1)) -> None:
        super().__init__()
        self.kept_gain = 1.0
        """Factor of the changes to kept pixels: above 1, more of an attack is removed, and more fine texture."""
        wide, middle, deep = widths
        self.enter = nn.Conv2d(16, wide, 3, padding=1)
        self.fine_in = residuals(wide, depths[0])
        self.to_middle = nn.Conv2d(wide, middle, 2, stride=2)
        self.middle_in = residuals(middle, depths[1])
        self.to_deep = nn.Conv2d(middle, deep, 2, stride=2)
        self.deep = residuals(deep, depths[2])
        self.from_deep = nn.Conv2d(deep, 4 * middle, 1)
        self.middle_out = residuals(middle, depths[3])
        self.from_middle = nn.Conv2d(middle, 4 * wide, 1)
        self.fine_out = residuals(wide, depths[4])
        self.leave = nn.Conv2d(wide, 12, 3, padding=1)
        for module in self.modules():
            if isinstance(module, _Residual):
                nn.init.zeros_(module.second.weight)
        begin_without_change(self, self.leave)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.enter.weight.dtype

    def forward(self, filled: Tensor, kept: Tensor) -> Tensor:
        """Map filled RGB frames (B, 3, H, W) in [0, 1] and masks (B, 1, H, W), 1 where kept, to clean frames."""
        return restored(filled, kept, self.change, self.kept_gain)

    def change(self, x: Tensor) -> Tensor:
        """Return the change (B, 3, H, W) for the result of `seen`, (B, 4, H, W) with sides that are multiples of 8.

        All layers with weights are here: another runtime than torch may run this part.
        """
        x = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        fine = self.fine_in(self.enter(x))
        middle = self.middle_in(self.to_middle(fine))
        deep = self.deep(self.to_deep(middle))
        middle = self.middle_out(middle + F.pixel_shuffle(self.from_deep(deep), 2))
        fine = self.fine_out(fine + F.pixel_shuffle(self.from_middle(middle), 2))
        return F.pixel_shuffle(self.leave(fine), 2)


def seen(filled: Tensor, kept: Tensor) -> Tensor:
    """Return the network's input (B, 4, H', W'): colours less a half and the mask, padded by repetition to multiples of
    8.
    """
    height, width = filled.shape[2:]
    padding = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
    x = torch.cat((filled - 0.5, kept.to(filled.dtype)), 1)
    return F.pad(x, padding, mode="replicate") if any(padding) else x


def restored(filled: Tensor, kept: Tensor, change: Callable[[Tensor], Tensor], kept_gain: float) -> Tensor:
    """Compute `Restorer.forward`, with `change` for its weights."""
    height, width = filled.shape[2:]
    added = change(seen(filled, kept))[:, :, :height, :width]
    if kept_gain != 1:
        added = added * (1 + (kept_gain - 1) * kept.to(added.dtype))
    return filled + added
