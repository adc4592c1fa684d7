"""Two typical networks of users for 224×224 pictures, by their papers' tables.

They are untrained: only their cost matters here.
"""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

_SMALL: Final = (
    # kernel, expanded, out, squeeze-and-excite, hard-swish, stride
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
"""Rows of Howard et al. 2019, table 2."""


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: nn.Module | None = None
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([] if act is None else [act]))


class _Excite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(8, (channels // 4 + 4) // 8 * 8)
        self.down = nn.Conv2d(channels, squeezed, 1)
        self.up = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class _Inverted(nn.Module):
    def __init__(self, inputs: int, row: tuple[int, int, int, bool, bool, int]) -> None:
        super().__init__()
        kernel, expanded, outputs, excited, swish, stride = row
        act: type[nn.Module] = nn.Hardswish if swish else nn.ReLU
        parts: list[nn.Module] = [] if expanded == inputs else [_convolution(inputs, expanded, 1, act=act())]
        parts.append(_convolution(expanded, expanded, kernel, stride, expanded, act()))
        if excited:
            parts.append(_Excite(expanded))
        self.body = nn.Sequential(*parts, _convolution(expanded, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return x + found if self.adds else found


def mobilenet_v3_small(classes: int = 1000) -> nn.Module:
    """Return MobileNetV3-Small (Howard et al. 2019): 2.5 million weights, 57 million multiply-adds at 224×224."""
    parts: list[nn.Module] = [_convolution(3, 16, 3, 2, act=nn.Hardswish())]
    inputs = 16
    for row in _SMALL:
        parts.append(_Inverted(inputs, row))
        inputs = row[2]
    parts.append(_convolution(inputs, 576, 1, act=nn.Hardswish()))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, classes)]
    return nn.Sequential(*parts, *head)


class _Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride, act=nn.ReLU())
        self.second = _convolution(outputs, outputs, 3)
        self.shortcut = nn.Identity() if inputs == outputs else _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


def resnet18(classes: int = 1000) -> nn.Module:
    """Return ResNet-18 (He et al. 2016, table 1): 11.7 million weights, 1.8 billion multiply-adds at 224×224."""
    parts: list[nn.Module] = [_convolution(3, 64, 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        parts += [_Basic(inputs, outputs, stride), _Basic(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
