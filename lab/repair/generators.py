"""Networks of the CycleGAN: a generator and a patch discriminator; small, for 32×32 on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1), nn.InstanceNorm2d(outputs, affine=True), nn.ReLU(inplace=True)
    )


class Generator(nn.Module):
    """The generator of CycleGAN, smaller (Zhu et al. 2017): two downsamplings, residual blocks, two upsamplings.

    The paper does not define its networks. This one repaints the whole frame, so its change is known only afterwards.
    """

    def __init__(self, channels: int, width: int = 8, blocks: int = 2) -> None:
        super().__init__()
        wide = 4 * width
        self.down = nn.Sequential(_block(channels, width), _block(width, 2 * width, 2), _block(2 * width, wide, 2))
        self.blocks = nn.ModuleList(
            nn.Sequential(_block(wide, wide), nn.Conv2d(wide, wide, 3, 1, 1)) for _ in range(blocks)
        )
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2), _block(wide, 2 * width), nn.Upsample(scale_factor=2), _block(2 * width, width)
        )
        self.last = nn.Conv2d(width, channels, 3, 1, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Return frames (B, C, H, W) of the other domain."""
        height, width = frames.shape[2:]
        x = self.down(F.pad(frames, (0, -width % 4, 0, -height % 4), mode="replicate"))
        for block in self.blocks:
            x = x + block(x)
        painted: Tensor = self.last(self.up(x))[:, :, :height, :width].sigmoid()
        return painted


class PatchDiscriminator(nn.Module):
    """A network to logits (B, 1, h, w), high where a patch of the frame looks real. Its input includes coordinates."""

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels + 2, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, 2 * width, 4, 2, 1), nn.InstanceNorm2d(2 * width, affine=True),
            nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(2 * width, 1, 3, 1, 1),
        )  # fmt: skip

    def forward(self, frames: Tensor) -> Tensor:
        """Return logits (B, 1, h, w) of frames (B, C, H, W)."""
        logits: Tensor = self.layers(with_coordinates(frames))
        return logits


def with_coordinates(frames: Tensor) -> Tensor:
    """Return frames (B, C, H, W) with two more channels: each pixel's row and column from −1 to 1."""
    rows = torch.linspace(-1, 1, frames.shape[2]).view(1, 1, -1, 1).expand(len(frames), 1, -1, frames.shape[3])
    columns = torch.linspace(-1, 1, frames.shape[3]).view(1, 1, 1, -1).expand(len(frames), 1, frames.shape[2], -1)
    return torch.cat((frames, rows, columns), 1)
