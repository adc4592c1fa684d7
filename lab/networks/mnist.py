"""A network for MNIST's 28×28 grey pictures, from AI-GAN's Table I (Bai et al. 2023)."""

from __future__ import annotations

from torch import Tensor, nn


class Stacked(nn.Module):
    """Layers in sequence, under the name that weights files contain."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised frames (B, 1, 28, 28) to logits (B, classes)."""
        logits: Tensor = self.layers(x)
        return logits


def model_b(classes: int = 10) -> Stacked:
    """Return model B of Carlini and Wagner (2017) as in the table, without their dropout: 0.3 million weights."""
    return Stacked(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 4 * 4, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(),
        nn.Linear(200, classes),
    )  # fmt: skip
