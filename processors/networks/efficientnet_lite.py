"""EfficientNet-Lite0: the network of Tan and Le 2019 without squeeze-and-excitation and with ReLU6.

Its table of stages is that of the published weights. Layers pad as TensorFlow does, which trained them: with stride 2,
one more row and column at the end than at the beginning.
"""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

_STAGES: Final = (
    # blocks, kernel, stride of the first, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM: Final = 32
_HEAD: Final = 1280
_EPS: Final = 1e-3
CHANNELS: Final = (*(stage[-1] for stage in _STAGES for _ in range(stage[0])), _HEAD)
"""Channels of the maps behind each block, and behind the last convolution."""


class _Convolution(nn.Module):
    """A convolution with batch normalisation and, unless it is `linear`, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, linear: bool = False
    ) -> None:
        super().__init__()
        # A stride of 2 halves even sides, which all of them are at 224×224.
        around = kernel - stride
        self.padding = (around // 2, around - around // 2) * 2
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=_EPS)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(self.convolution(F.pad(x, self.padding) if any(self.padding) else x))
        return found if self.linear else F.relu6(found)


class _InvertedResidual(nn.Module):
    """An inverted residual block: expand, filter each channel, project."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = _Convolution(inputs, wide, 1) if expansion > 1 else None
        self.depthwise = _Convolution(wide, wide, kernel, stride, wide)
        self.project = _Convolution(wide, outputs, 1, linear=True)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else self.expand(x)
        found: Tensor = self.project(self.depthwise(wide))
        return x + found if self.adds else found


class EfficientNetLite0(nn.Module):
    """The network for pictures (B, 3, 224, 224): logits (B, classes)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = _Convolution(3, _STEM, 3, 2)
        blocks: list[nn.Module] = []
        inputs = _STEM
        for count, kernel, stride, expansion, outputs in _STAGES:
            for index in range(count):
                blocks.append(_InvertedResidual(inputs, outputs, kernel, 1 if index else stride, expansion))
                inputs = outputs
        self.blocks: nn.Sequential = nn.Sequential(*blocks)
        self.head = _Convolution(inputs, _HEAD, 1)
        self.classifier = nn.Linear(_HEAD, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of normalised pictures (B, 3, 224, 224)."""
        found: Tensor = self.head(self.blocks(self.stem(x)))
        logits: Tensor = self.classifier(found.mean((2, 3)))
        return logits
