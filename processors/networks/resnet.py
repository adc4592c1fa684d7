"""ResNet for 32×32 pictures (He et al. 2016, section 4.2): 6n + 2 layers, three stages, option-A shortcuts."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3×3 convolutions parallel to a shortcut without weights.

    The shortcut subsamples and pads new channels with zeros (option A of the paper).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.channels_added = channels_out - channels_in
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.channels_added:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.channels_added))
        return F.relu(y + shortcut, inplace=True)


class ResNet(nn.Module):
    """A stem, three stages of `depth_per_stage` blocks and a linear layer over the mean of the last maps."""

    def __init__(self, classes: int, channels: int = 3, depth_per_stage: int = 3, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        channels_in = width
        for stage, stride in enumerate((1, 2, 2)):
            for index in range(depth_per_stage):
                channels_out = width << stage
                blocks.append(BasicBlock(channels_in, channels_out, stride if index == 0 else 1))
                channels_in = channels_out
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels_in, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised frames (B, C, H, W) to logits (B, classes)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.blocks(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def resnet20(classes: int, channels: int = 3) -> ResNet:
    """ResNet-20: 0.27 million weights, 41 million multiply-adds for a 32×32 RGB picture."""
    return ResNet(classes, channels)
