"""AI-GAN's generator: a picture and a target class to the direction in which to change the picture, in one pass.

Bai et al. (2023), section IV-B. As in the projection GAN that the paper takes its layers from (Miyato and Koyama 2018),
residual blocks are told the class by conditional batch normalisation. Ours work at a quarter of the picture's height
and width, where a convolution costs a sixteenth, and pixel shuffles lead in and out; what a target class wants of any
picture alike is learned beside them, as one direction a class, and the blocks learn what to change of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PICTURE_CENTRE, PICTURE_SPREAD = 0.5, 0.25
SCALE = 4
"""Height and width must be multiples of it."""
USUAL_GAIN = 10.0
"""On the directions of the classes: Adam moves a weight by its rate at most, and tanh asks for weights of 2."""


class Shape(NamedTuple):
    """What a generator is made for: pictures (channels, height, width) and how many classes can be the target."""

    classes: int
    channels: int
    height: int
    width: int


class ConditionalNorm(nn.Module):
    """Batch normalisation whose scale and shift are those of the target class."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(classes, channels)
        self.shift = nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Maps (B, C, H, W) and targets (B,) to the same shape."""
        scale: Tensor = self.scale(targets)
        shift: Tensor = self.shift(targets)
        normal: Tensor = self.norm(x)
        return normal * scale[:, :, None, None] + shift[:, :, None, None]


class ConditionalBlock(nn.Module):
    """Two 3×3 convolutions beside the identity, each told the target class before it."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(classes, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = ConditionalNorm(classes, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Maps (B, C, H, W) and targets (B,) to the same shape."""
        y: Tensor = self.conv1(F.relu(self.norm1(x, targets)))
        y = self.conv2(F.relu(self.norm2(y, targets)))
        return x + y


class Encoder(nn.Module):
    """What is in a picture, whatever the target: maps at a half and at a quarter of its size.

    It is pre-trained without labels (`lab.aigan.pretraining`).
    """

    def __init__(self, channels: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4 * channels, narrow, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(narrow)
        self.conv = nn.Conv2d(narrow, narrow, 3, padding=1, bias=False)
        self.conv_norm = nn.BatchNorm2d(narrow)
        self.down = nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, C, H, W) in [0, 1] to (B, narrow, H/2, W/2) and (B, wide, H/4, W/4)."""
        x = F.pixel_unshuffle((pictures - PICTURE_CENTRE) / PICTURE_SPREAD, 2)
        x = F.relu(self.norm(self.stem(x)))
        half = F.relu(self.conv_norm(self.conv(x)))
        return half, self.down(half)


class Generator(nn.Module):
    """Pictures (B, C, H, W) in [0, 1] and targets (B,) int64 to directions (B, C, H, W) in [−1, 1]."""

    def __init__(self, shape: Shape, narrow: int = 32, wide: int = 96, blocks: int = 2) -> None:
        super().__init__()
        if shape.height % SCALE or shape.width % SCALE:
            raise ValueError(f"expected a height and width in multiples of {SCALE}, got {shape.height}x{shape.width}")
        self.shape = shape
        classes, channels = shape.classes, shape.channels
        self.encoder = Encoder(channels, narrow, wide)
        self.blocks = nn.ModuleList(ConditionalBlock(classes, wide) for _ in range(blocks))
        self.norm = ConditionalNorm(classes, wide)
        self.up = nn.Conv2d(wide, 4 * narrow, 1, bias=False)
        self.merge = nn.Conv2d(2 * narrow, narrow + narrow // 2, 3, padding=1, bias=False)
        self.merge_norm = ConditionalNorm(classes, narrow + narrow // 2)
        self.out = nn.Conv2d(narrow + narrow // 2, 4 * channels, 3, padding=1)
        self.usual = nn.Embedding(classes, channels * shape.height * shape.width)
        nn.init.normal_(self.usual.weight, std=0.1 / USUAL_GAIN)

    def forward(self, pictures: Tensor, targets: Tensor) -> Tensor:
        """See the class. Bounded by tanh: no projection and no penalty is needed to keep ε."""
        half, x = self.encoder(pictures)
        for block in self.blocks:
            x = block(x, targets)
        x = F.pixel_shuffle(self.up(F.relu(self.norm(x, targets))), 2)
        x = self.merge(torch.cat((half, x), 1))
        x = F.pixel_shuffle(self.out(F.relu(self.merge_norm(x, targets))), 2)
        usual = self.usual(targets).view(-1, self.shape.channels, self.shape.height, self.shape.width)
        return torch.tanh(x + USUAL_GAIN * usual)


def perturbed(pictures: Tensor, direction: Tensor, eps: float) -> Tensor:
    """The attacked pictures (B, C, H, W) in [0, 1], within L∞ `eps` of `pictures`."""
    return (pictures + eps * direction).clamp(0, 1)
