"""AI-GAN's discriminator: whether a picture is clean, and its original class.

Bai et al. (2023), section IV-B: one trunk with two heads. The paper takes its layers from the projection GAN, and so
does the spectral normalisation here. The trunk halves the picture's size three times.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lab.aigan.generator import PICTURE_CENTRE, PICTURE_SPREAD


class Discriminator(nn.Module):
    """A network from pictures (B, C, H, W) in [0, 1] to two outputs.

    The outputs are a logit of being clean (B,) and logits of the original classes (B, classes).
    """

    def __init__(self, classes: int, channels: int, width: int = 32) -> None:
        super().__init__()
        sizes = [channels, width, 2 * width, 4 * width]
        self.convolutions = nn.ModuleList(
            spectral_norm(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)) for inputs, outputs in pairwise(sizes)
        )
        self.clean = spectral_norm(nn.Linear(sizes[-1], 1))
        self.classes = nn.Linear(sizes[-1], classes)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return both outputs. See the class."""
        x = (pictures - PICTURE_CENTRE) / PICTURE_SPREAD
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), 0.1)
        features = x.mean((2, 3))
        return self.clean(features)[:, 0], self.classes(features)
