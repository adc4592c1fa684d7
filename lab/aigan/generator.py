"""AI-GAN's generator: a picture and a target class to the direction in which to change the picture, in one pass.

Bai et al. (2023), section IV-B. As in the projection GAN that the paper takes its layers from (Miyato and Koyama 2018),
residual blocks are told the class by conditional batch normalisation; here each class also mixes channels in its own
way. The blocks work at a quarter of the picture's height and width, where a convolution costs a sixteenth, and pixel
shuffles lead in and out. What turns pictures of one class into another lies beside them, as one template for each pair
of classes: a gate, which guesses what the picture shows, weighs them, and the blocks learn what to change.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PICTURE_CENTRE, PICTURE_SPREAD = 0.5, 0.25
SCALE = 4
"""Height and width must be multiples of it."""
TEMPLATE_GAIN = 2.0
"""On the templates, which lie in [−1, 1]: tanh asks for 2 to come near the bound."""
GATE_GRID = 2
"""The gate sees the mean of so many parts of the picture each way."""
GATE_WIDTH = 128
DENSE_WIDTH = 64


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


class ClassMix(nn.Module):
    """Beside the identity, each place's channels times a matrix of the target class."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.matrices = nn.Embedding(classes, channels * channels)
        nn.init.normal_(self.matrices.weight, std=0.05)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Maps (B, C, H, W) and targets (B,) to the same shape."""
        matrices = self.matrices(targets).view(-1, x.shape[1], x.shape[1])
        return x + torch.bmm(matrices, F.relu(x).flatten(2)).view(x.shape)


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


class Gate(nn.Module):
    """What the picture shows, guessed from the encoder's deepest maps."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels * GATE_GRID**2, GATE_WIDTH)
        self.norm = nn.BatchNorm1d(GATE_WIDTH)
        self.out = nn.Linear(GATE_WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to logits (B, classes)."""
        seen = F.adaptive_avg_pool2d(F.relu(x), GATE_GRID).flatten(1)
        logits: Tensor = self.out(F.relu(self.norm(self.hidden(seen))))
        return logits


class Dense(nn.Module):
    """What a picture as a whole adds to the direction: a few learned directions, weighed by picture and class."""

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
        """Pictures (B, C, H, W) in [0, 1] and targets (B,) to (B, C, H, W)."""
        x = self.norm(self.seen(((pictures - PICTURE_CENTRE) / PICTURE_SPREAD).flatten(1)))
        x = F.relu(x * self.scale(targets) + self.shift(targets))
        directions: Tensor = self.out(F.relu(self.hidden(x)))
        return directions.view(pictures.shape)


class Generator(nn.Module):
    """Pictures (B, C, H, W) in [0, 1] and targets (B,) int64 to directions (B, C, H, W) in [−1, 1]."""

    def __init__(self, shape: Shape, narrow: int = 32, wide: int = 96, blocks: int = 2) -> None:
        super().__init__()
        if shape.height % SCALE or shape.width % SCALE:
            raise ValueError(f"expected a height and width in multiples of {SCALE}, got {shape.height}x{shape.width}")
        self.shape = shape
        classes, channels = shape.classes, shape.channels
        middle = narrow + narrow // 2
        self.encoder = Encoder(channels, narrow, wide)
        self.gate = Gate(wide, classes)
        self.templates = nn.Embedding(classes, classes * channels * shape.height * shape.width)
        """Of target t, from source s: row t holds the directions of all s, in [−1, 1] when training begins."""
        self.places = nn.Embedding(classes, wide * (shape.height // SCALE) * (shape.width // SCALE))
        """What a target class adds to the maps at each place."""
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
        """Logits (B, classes) of what the gate takes the pictures for."""
        guess: Tensor = self.gate(self.encoder(pictures)[1])
        return guess

    def forward(self, pictures: Tensor, targets: Tensor) -> Tensor:
        """See the class. Bounded by tanh: no projection and no penalty is needed to keep ε."""
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
    """The attacked pictures (B, C, H, W) in [0, 1], within L∞ `eps` of `pictures`."""
    return (pictures + eps * direction).clamp(0, 1)
