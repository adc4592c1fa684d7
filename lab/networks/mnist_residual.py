"""A residual network for MNIST's 28×28 grey pictures, whose convolutions run on maps of 14×14 and 7×7."""

from __future__ import annotations

from torch import nn

from lab.networks.mnist import Stacked
from processors.networks.resnet import BasicBlock


def residual(classes: int = 10) -> Stacked:
    """Return a stem that halves the picture, three residual blocks and two linear layers: 0.5 million weights."""
    return Stacked(
        nn.Conv2d(1, 48, 4, 2, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU(),
        BasicBlock(48, 48, 1), BasicBlock(48, 96, 2), BasicBlock(96, 96, 1),
        nn.AvgPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(96 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, classes),
    )  # fmt: skip
