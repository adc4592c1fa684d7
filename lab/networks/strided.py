"""A small network for larger pictures: two strided convolutions, then the ResNet for small pictures."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from processors.networks.resnet import ResNet


class Strided(nn.Module):
    """A ResNet on pictures (B, 3, H, W) at a quarter of their size: 128×128 costs the same as 32×32."""

    def __init__(self, classes: int, width: int = 16, depth_per_stage: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.body = ResNet(classes, width, depth_per_stage, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised frames (B, 3, H, W) to logits (B, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        logits: Tensor = self.body(F.relu(self.bn2(self.conv2(x))))
        return logits
