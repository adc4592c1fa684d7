"""AI-GAN's generator: from a picture and a target class to the direction of the change, in one pass.

Bai et al. (2023), section IV-B. The layers are those of the projection GAN (Miyato and Koyama 2018), as in the paper:
conditional batch normalisation passes the class to residual blocks. Here each class also mixes channels with its own
matrix. The blocks work at a quarter of the picture's height and width, where a convolution costs a sixteenth. Pixel
shuffles change the resolution before and after them.

A template for each pair of classes holds the change that turns pictures of one class into the other. A gate estimates
the picture's class and weights the templates. The blocks learn corrections to this mean.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PICTURE_CENTRE, PICTURE_SPREAD = 0.5, 0.25
SCALE = 4
"""Divisor of height and width."""
TEMPLATE_GAIN = 2.0
"""Gain of the templates in [−1, 1]: tanh needs an input of 2 to come near the bound."""
GATE_GRID = 2
"""Cells per side of the grid over which the gate averages its maps."""
GATE_WIDTH = 128
DENSE_WIDTH = 64


class Shape(NamedTuple):
    """The sizes of a generator: pictures (channels, height, width) and the number of target classes."""

    classes: int
    channels: int
    height: int
    width: int


class ConditionalNorm(nn.Module):
    """Batch normalisation with scale and shift of the target class."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(classes, channels)
        self.shift = nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return maps (B, C, H, W), normalised for targets (B,)."""
        scale: Tensor = self.scale(targets)
        shift: Tensor = self.shift(targets)
        normal: Tensor = self.norm(x)
        return normal * scale[:, :, None, None] + shift[:, :, None, None]


class ConditionalBlock(nn.Module):
    """A residual block of two 3×3 convolutions, each after a normalisation by the target class."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(classes, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = ConditionalNorm(classes, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return maps (B, C, H, W) for maps of this shape and targets (B,)."""
        y: Tensor = self.conv1(F.relu(self.norm1(x, targets)))
        y = self.conv2(F.relu(self.norm2(y, targets)))
        return x + y


class ClassMix(nn.Module):
    """A residual layer that multiplies the channels at each place by a matrix of the target class."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.matrices = nn.Embedding(classes, channels * channels)
        nn.init.normal_(self.matrices.weight, std=0.05)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return maps (B, C, H, W) for maps of this shape and targets (B,)."""
        matrices = self.matrices(targets).view(-1, x.shape[1], x.shape[1])
        return x + torch.bmm(matrices, F.relu(x).flatten(2)).view(x.shape)


class Encoder(nn.Module):
    """An encoder of the picture's content, independent of the target: maps at a half and at a quarter of its size.

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
        """Return maps (B, narrow, H/2, W/2) and (B, wide, H/4, W/4) of pictures (B, C, H, W) in [0, 1]."""
        x = F.pixel_unshuffle((pictures - PICTURE_CENTRE) / PICTURE_SPREAD, 2)
        x = F.relu(self.norm(self.stem(x)))
        half = F.relu(self.conv_norm(self.conv(x)))
        return half, self.down(half)


class Gate(nn.Module):
    """A classifier of the picture's class on the encoder's deepest maps."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels * GATE_GRID**2, GATE_WIDTH)
        self.norm = nn.BatchNorm1d(GATE_WIDTH)
        self.out = nn.Linear(GATE_WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of maps (B, C, H, W)."""
        seen = F.adaptive_avg_pool2d(F.relu(x), GATE_GRID).flatten(1)
        logits: Tensor = self.out(F.relu(self.norm(self.hidden(seen))))
        return logits


class Dense(nn.Module):
    """The contribution of the whole picture to the direction: learned directions, weighted by picture and class."""

    def __init__(self, classes: int, values: int) -> None:
        super().__init__()
        self.seen = nn.Linear(values, DENSE_WIDTH)
        self.norm = nn.BatchNorm1d(DENSE_WIDTH, affine=False)
        self.scale = nn.Embedding(classes, DENSE_WIDTH)
        self.shift = nn.Embedding(classes, DENSE_WIDTH)
        self.hidden = nn.Linear(DENSE_WIDTH, DENSE_WIDTH)
        self.out = nn.Linear(DENSE_WIDTH, values)
        nn.init.ones_(self.scale.weight)
        nn.init.normal_(self.shift.weight, std=0.5)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, pictures: Tensor, targets: Tensor) -> Tensor:
        """Return directions (B, C, H, W) for pictures of this shape in [0, 1] and targets (B,)."""
        x = self.norm(self.seen(((pictures - PICTURE_CENTRE) / PICTURE_SPREAD).flatten(1)))
        x = F.relu(x * self.scale(targets) + self.shift(targets))
        directions: Tensor = self.out(F.relu(self.hidden(x)))
        return directions.view(pictures.shape)


class Generator(nn.Module):
    """A network from pictures (B, C, H, W) in [0, 1] and targets (B,) int64 to directions (B, C, H, W) in [−1, 1]."""

    def __init__(self, shape: Shape, narrow: int = 32, wide: int = 96, blocks: int = 2) -> None:
        super().__init__()
        if shape.height % SCALE or shape.width % SCALE:
            raise ValueError(
                f"size: expected a height and width in multiples of {SCALE}, got {shape.height}x{shape.width}"
            )
        self.shape = shape
        classes, channels = shape.classes, shape.channels
        middle = narrow + narrow // 2
        self.encoder = Encoder(channels, narrow, wide)
        self.gate = Gate(wide, classes)
        self.templates = nn.Embedding(classes, classes * channels * shape.height * shape.width)
        """The templates: row t holds the directions from all sources to target t, in [−1, 1] when training begins."""
        self.places = nn.Embedding(classes, wide * (shape.height // SCALE) * (shape.width // SCALE))
        """The contribution of a target class to the maps at each place."""
        self.blocks = nn.ModuleList(ConditionalBlock(classes, wide) for _ in range(blocks))
        self.mix = ClassMix(classes, wide)
        self.norm = ConditionalNorm(classes, wide)
        self.up = nn.Conv2d(wide, 4 * narrow, 1, bias=False)
        self.merge = nn.Conv2d(2 * narrow, middle, 3, padding=1, bias=False)
        self.merge_mix = ClassMix(classes, middle)
        self.merge_norm = ConditionalNorm(classes, middle)
        self.out = nn.Conv2d(middle, 4 * channels, 3, padding=1)
        self.dense = Dense(classes, channels * shape.height * shape.width)
        assert self.out.bias is not None
        for nothing in (self.templates.weight, self.out.weight, self.out.bias):
            nn.init.zeros_(nothing)
        nn.init.normal_(self.places.weight, std=0.1)

    def guessed(self, pictures: Tensor) -> Tensor:
        """Return the gate's logits (B, classes) of the pictures' classes."""
        guess: Tensor = self.gate(self.encoder(pictures)[1])
        return guess

    def forward(self, pictures: Tensor, targets: Tensor) -> Tensor:
        """Return the directions. See the class.

        Tanh bounds them, so ε needs neither a projection nor a penalty.
        """
        half, x = self.encoder(pictures)
        shares = self.gate(x).softmax(1)[:, None]
        usual = torch.bmm(shares, self.templates(targets).view(-1, self.shape.classes, pictures[0].numel()))
        x = x + self.places(targets).view(x.shape)
        for number, block in enumerate(self.blocks):
            x = block(x, targets)
            if number == 0:
                x = self.mix(x, targets)
        x = F.pixel_shuffle(self.up(F.relu(self.norm(x, targets))), 2)
        x = self.merge_mix(self.merge(torch.cat((half, x), 1)), targets)
        x = F.pixel_shuffle(self.out(F.relu(self.merge_norm(x, targets))), 2)
        return torch.tanh(x + self.dense(pictures, targets) + TEMPLATE_GAIN * usual.view(pictures.shape))


def perturbed(pictures: Tensor, direction: Tensor, eps: float) -> Tensor:
    """Return the attacked pictures (B, C, H, W) in [0, 1], within L∞ `eps` of `pictures`."""
    return (pictures + eps * direction).clamp(0, 1)
