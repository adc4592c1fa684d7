"""The basic CNN of the CleverHans library, the target network of QuSecNets (Khalid et al. 2019, section IV-A).

Conv2D(64, 8×8, stride 2, same) – Conv2D(128, 6×6, stride 2) – Conv2D(128, 5×5) – Dense: ReLU after each convolution, no
batch normalisation. The paper prints the kernels. Strides and padding are those of the library's `basic_cnn`.
"""

from __future__ import annotations

from torch import Tensor, nn


class BasicCnn(nn.Module):
    """The network for pictures of `side` × `side` pixels, at least 22: MNIST's and CIFAR-10's. 0.7 million weights."""

    def __init__(self, classes: int = 10, channels: int = 1, side: int = 28) -> None:
        super().__init__()
        # "Same" at this stride means 3 pixels to each side of an even number of pixels.
        left = (((side + 1) // 2 - 5) // 2 + 1 - 4) ** 2
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 64, 8, stride=2, padding=3), nn.ReLU(inplace=True),
            nn.Conv2d(64, 128, 6, stride=2), nn.ReLU(inplace=True),
            nn.Conv2d(128, 128, 5), nn.ReLU(inplace=True),
            nn.Flatten(), nn.Linear(128 * left, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised frames (B, channels, side, side) to logits (B, classes)."""
        logits: Tensor = self.layers(x)
        return logits
