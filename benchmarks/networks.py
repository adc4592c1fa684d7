"""Networks of users' shapes with random weights, for pictures of 224×224: what they cost, not what they know."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 1000


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class _Basic(nn.Module):
    """ResNet's block (He et al. 2016) with a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(inputs, outputs, 3, stride), nn.ReLU(True), *_convolution(outputs, outputs, 3)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential(*([] if same else _convolution(inputs, outputs, 1, stride)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return F.relu(self.body(x) + self.shortcut(x))


def resnet18() -> nn.Module:
    """ResNet-18's layers: 11.7 million weights, 1.8 thousand million multiply-adds."""
    layers: list[nn.Module] = [*_convolution(3, 64, 7, 2), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [_Basic(inputs, outputs, stride), _Basic(outputs, outputs, 1)]
        inputs = outputs
    return _random(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES)))


class _Squeeze(nn.Module):
    """Squeeze and excitation with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, max(8, channels // 4), 1),
            nn.ReLU(True),
            nn.Conv2d(max(8, channels // 4), channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        gated: Tensor = x * self.gate(x)
        return gated


class _Inverted(nn.Module):
    """MobileNetV3's block (Howard et al. 2019, table 2)."""

    def __init__(
        self, inputs: int, kernel: int, wide: int, outputs: int, squeezed: bool, hard: bool, stride: int
    ) -> None:
        super().__init__()
        act: type[nn.Module] = nn.Hardswish if hard else nn.ReLU
        layers: list[nn.Module] = [] if wide == inputs else [*_convolution(inputs, wide, 1), act()]
        layers += [*_convolution(wide, wide, kernel, stride, wide), act()]
        layers += [_Squeeze(wide)] if squeezed else []
        self.body = nn.Sequential(*layers, *_convolution(wide, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y: Tensor = self.body(x)
        return x + y if self.adds else y


_SMALL = (
    (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1), (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1), (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
)  # fmt: skip


def mobilenet_v3_small() -> nn.Module:
    """MobileNetV3-small's layers: 2.5 million weights, 57 million multiply-adds."""
    layers: list[nn.Module] = [*_convolution(3, 16, 3, 2), nn.Hardswish()]
    inputs = 16
    for kernel, wide, outputs, squeezed, hard, stride in _SMALL:
        layers.append(_Inverted(inputs, kernel, wide, outputs, squeezed, hard, stride))
        inputs = outputs
    layers += [*_convolution(inputs, 576, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return _random(nn.Sequential(*layers, nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, CLASSES)))


def _random(network: nn.Module) -> nn.Module:
    """Weights of a fixed seed under which activations neither vanish nor explode."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # missing from stubs
