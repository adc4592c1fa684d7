"""The networks of QuSecNets: a quantisation layer in front of a classifier, trained together.

The layer maps each pixel to one of n levels, softly (Khalid et al. 2019, equation 1):

    y = 1/(n − 1) · Σ_k 1 / (1 + exp(−z·(x − t_k))),  k = 1 … n − 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from lab.networks.basic_cnn import BasicCnn
from lab.networks.mnist import model_b
from processors.stages.preprocess.quantisation import quantise

CONSTANT_STEEPNESS: Final = 50.0
TRAINABLE_STEEPNESS: Final = 5.0
CLASSES: Final = 10


class Architecture(NamedTuple):
    """A network by its factory's name, as in a bundle, the factory itself, and its arguments."""

    factory: str
    make: Callable[..., nn.Module]
    arguments: dict[str, int]


@dataclass(frozen=True)
class Quantisation:
    """One network of the paper: its data set, and the number n of `levels` of the layer in front of it.

    Without a layer, `levels` is None. An `attacked` network differs from the paper's: it is a deeper one, and is then
    trained by PGD in the output box of its layer.
    """

    data: str
    levels: int | None = None
    trainable: bool = False
    attacked: bool = False
    as_printed: bool = False
    """The paper's own form: one trained threshold for each pixel, z = 5, and the squared error of its equation 2."""

    @property
    def name(self) -> str:
        """The name, such as `mnist-tq2` or `cifar10-plain`."""
        kind = "plain" if self.levels is None else f"{'tq' if self.trainable else 'cq'}{self.levels}"
        return f"{self.data}-{kind}{'-attacked' if self.attacked else ''}{'-printed' if self.as_printed else ''}"

    def behind(self, channels: int, side: int) -> Architecture:
        """Return the network behind the layer, for pictures of `side` × `side` pixels with `channels`."""
        if self.attacked:
            return Architecture("lab.networks.mnist:model_b", model_b, {"classes": CLASSES})
        arguments = {"classes": CLASSES, "channels": channels, "side": side}
        return Architecture("lab.networks.basic_cnn:BasicCnn", BasicCnn, arguments)


NETWORKS: Final = {
    each.name: each
    for each in (
        Quantisation("mnist"),
        *(Quantisation("mnist", levels, trainable) for levels in (2, 4, 6) for trainable in (False, True)),
        Quantisation("mnist", 2, attacked=True),
        *(Quantisation("mnist", 2, trainable, as_printed=True) for trainable in (True, False)),
        Quantisation("cifar10"),
        *(Quantisation("cifar10", levels, trainable) for levels in (4, 8) for trainable in (False, True)),
    )
}


class QuantisedNetwork(nn.Module):
    """The layer of n levels, the normalisation and the network, trained together."""

    def __init__(
        self, wanted: Quantisation, network: nn.Module, mean: list[float], std: list[float], side: int = 28
    ) -> None:
        super().__init__()
        self.pixels = (len(mean), side, side) if wanted.as_printed and wanted.trainable else (1, 1, 1)
        self.network = network
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        between = 0 if wanted.levels is None else wanted.levels - 1
        start = TRAINABLE_STEEPNESS if wanted.trainable else CONSTANT_STEEPNESS
        thresholds = torch.arange(1, between + 1) / (between + 1)
        # One axis: the recipe's weight decay is for weights of more axes.
        every = thresholds[:, None].expand(-1, math.prod(self.pixels)).flatten()
        self.thresholds = nn.Parameter(every.clone(), requires_grad=wanted.trainable)
        learned = wanted.trainable and not wanted.as_printed
        self.log_steepness = nn.Parameter(torch.tensor(math.log(start)), requires_grad=learned)

    @property
    def layer(self) -> tuple[Tensor, Tensor]:
        """The thresholds (n − 1, 1 or C, 1 or H, 1 or W) and the steepness of the layer."""
        return self.thresholds.view(-1, *self.pixels), self.log_steepness.exp()

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames (B, C, H, W) in [0, 1] to logits (B, classes)."""
        return self.behind(self.quantised(frames))

    def quantised(self, frames: Tensor) -> Tensor:
        """Return the layer's output (B, C, H, W) for frames in [0, 1]."""
        if not len(self.thresholds):
            return frames
        return quantise(frames, *self.layer)

    def normalised(self, images: Tensor) -> Tensor:
        """Return outputs of the layer (B, C, H, W) as the network takes them."""
        return (images - self.mean) / self.std

    def behind(self, images: Tensor) -> Tensor:
        """Map outputs of the layer (B, C, H, W) to logits (B, classes)."""
        logits: Tensor = self.network(self.normalised(images))
        return logits
