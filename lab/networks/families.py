"""Classifiers for 32×32 pictures of four families that share no building block with a ResNet of two 3×3 convolutions.

Attacks through the *surrogates* train the learned reconstruction. The *judges* take part in no training but their own,
so their results on the defence are independent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from processors.networks.resnet import resnet20


def _convolution(inputs: int, outputs: int, kernel: int = 3, groups: int = 1, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _head(features: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)]


def vgg(classes: int = 10, width: int = 32) -> nn.Module:
    """Return a plain stack of 3×3 convolutions with max pooling (Simonyan and Zisserman 2015)."""
    layers: list[nn.Module] = []
    inputs = 3
    for stage, depth in enumerate((2, 2, 2)):
        outputs = width << stage
        for _ in range(depth):
            layers.append(_convolution(inputs, outputs))
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *_head(inputs, classes))


class _DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.convolution = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.convolution(F.relu(self.norm(x)))), 1)


def densenet(classes: int = 10) -> nn.Module:
    """Return dense blocks, each layer fed with all before it (Huang et al. 2017), and average pooling between them."""
    parts: list[nn.Module] = [nn.Conv2d(3, 24, 3, padding=1, bias=False)]
    channels = 24
    for growth, layers in ((16, 2), (24, 4), (48, 4)):
        for _ in range(layers):
            parts.append(_DenseLayer(channels, growth))
            channels += growth
        if growth != 48:
            parts += [_convolution(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*parts, nn.BatchNorm2d(channels), nn.ReLU(), *_head(channels, classes))


def mobilenet(classes: int = 10) -> nn.Module:
    """Return depthwise separable convolutions (Howard et al. 2017)."""
    parts: list[nn.Module] = [_convolution(3, 32)]
    inputs = 32
    for outputs, stride in ((64, 1), (96, 2), (96, 1), (96, 1), (192, 2), (192, 1), (192, 1)):
        parts += [_convolution(inputs, inputs, 3, groups=inputs, stride=stride), _convolution(inputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*parts, *_head(inputs, classes))


class _Inception(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        quarter = outputs // 4
        self.point = _convolution(inputs, quarter, 1)
        self.small = nn.Sequential(_convolution(inputs, quarter, 1), _convolution(quarter, quarter))
        self.large = nn.Sequential(
            _convolution(inputs, quarter, 1), _convolution(quarter, quarter), _convolution(quarter, quarter)
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), _convolution(inputs, quarter, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.point(x), self.small(x), self.large(x), self.pooled(x)), 1)


def inception(classes: int = 10) -> nn.Module:
    """Return parallel branches of several kernel sizes, concatenated (Szegedy et al. 2015)."""
    return nn.Sequential(
        _convolution(3, 32),
        _convolution(32, 32),
        nn.MaxPool2d(2),
        _Inception(32, 96),
        _Inception(96, 128),
        nn.MaxPool2d(2),
        _Inception(128, 192),
        _Inception(192, 256),
        *_head(256, classes),
    )


FAMILIES: Final[dict[str, Callable[[int], nn.Module]]] = {
    "resnet": resnet20,
    "vgg": vgg,
    "densenet": densenet,
    "mobilenet": mobilenet,
    "inception": inception,
}
SURROGATES: Final = ("vgg", "inception")
"""Families through which attacks in training pass."""
JUDGES: Final = ("resnet", "densenet", "mobilenet")
"""Families that no training of the defence has used."""
