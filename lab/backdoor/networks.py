"""The networks of CoDefend's Table 1, as far as the table describes them.

The table counts layers but gives no widths. The widths here keep the weights below 5 MiB. The table mentions no batch
normalisation. Here one follows each convolution, because 8 layers hardly train without it at the recipe's learning
rates.
"""

from __future__ import annotations

from torch import Tensor, nn


class Dense(nn.Module):
    """MNIST: "2 Dense + 1 Flatten"."""

    def __init__(self, classes: int = 10, inputs: int = 28 * 28, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised frames (B, C, H, W) with C·H·W inputs to logits (B, classes)."""
        logits: Tensor = self.layers(x.contiguous())
        return logits


class Convolutional(nn.Module):
    """Groups of 3×3 convolutions, each group ending in 2×2 max pooling and dropout, then dense layers.

    With three groups of two and `hidden`, it is GTSRB's "6 Conv + 3 Pooling + 4 Dropout + 2 Dense". With groups of 2, 3
    and 3 and no `hidden`, it is CIFAR-10's "8 Conv + 3 Pooling + 3 Dropout + 1 Flatten + 1 Dense".
    """

    def __init__(
        self,
        classes: int,
        groups: list[list[int]],
        hidden: int | None = None,
        channels: int = 3,
        side: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = channels
        for group in groups:
            for out in group:
                layers += [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
                width = out
            layers += [nn.MaxPool2d(2), nn.Dropout(dropout)]
        layers.append(nn.Flatten())
        width *= (side >> len(groups)) ** 2
        if hidden is not None:
            layers += [nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5)]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised frames (B, C, side, side) to logits (B, classes)."""
        logits: Tensor = self.layers(x)
        return logits


def mnist_dense(classes: int = 10) -> Dense:
    """Return the network for MNIST: 0.2 million weights."""
    return Dense(classes)


def gtsrb_convolutional(classes: int = 43) -> Convolutional:
    """Return the network for GTSRB: 0.8 million weights."""
    return Convolutional(classes, [[32, 32], [64, 64], [128, 128]], hidden=256)


def cifar10_convolutional(classes: int = 10) -> Convolutional:
    """Return the network for CIFAR-10: 0.6 million weights."""
    return Convolutional(classes, [[32, 32], [64, 64, 64], [128, 128, 128]])
