"""The attacked networks: bundles whose `quantisation` stage was trained with them, or without such a stage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks import random_targets
from lab.attacks.bpda import bpda, identity
from lab.cache import digest
from lab.data import LabelledPictures
from lab.experiments.qusecnets.substitute import substitute
from processors.bundle import Bundle

SOFT: Final = 5.0
"""Steepness of the sigmoid for BPDA's backward pass: the paper's own for trainable layers."""


@dataclass(frozen=True)
class Judge:
    """A bundle with its evaluation pictures, and with pictures for queries by an attacker without the network."""

    bundle: Bundle
    pictures: LabelledPictures
    known: LabelledPictures
    seed: int

    @property
    def name(self) -> str:
        """The judge's name, such as `mnist-cq2`."""
        return self.bundle.settings.name

    @property
    def data(self) -> str:
        """The data set: `mnist` or `cifar10`."""
        return self.name.partition("-")[0]

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """A random other class for every picture, the same one for all attacks."""
        generator = torch.Generator().manual_seed(self.seed)
        labels = torch.from_numpy(self.pictures.labels)
        return random_targets(labels, len(self.bundle.settings.classes), generator).numpy()

    def logits(self, frames: Tensor) -> Tensor:
        """Return logits (B, classes) of frames (B, C, H, W) in [0, 1] through the layer and the network, as live."""
        return self.bundle.logits(frames)

    def by_identity(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return the logits with the identity's gradient in place of the layer's: BPDA, a `Defended`."""
        return self.bundle.network_logits(bpda(self._layer, identity)(frames, generator))

    def by_soft(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return the logits with the gradient of one soft sigmoid in the middle of the range.

        This is the layer's own direction.
        """
        return self.bundle.network_logits(bpda(self._layer, _soft)(frames, generator))

    def _layer(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        return self.bundle.preprocess(frames)

    @cached_property
    def imitation(self) -> torch.nn.Module:
        """The network that a black-box attacker attacks instead."""
        return substitute(self.logits, self.known, len(self.bundle.settings.classes), self.seed)

    def made_from(self) -> tuple[object, ...]:
        """Return the inputs on which the judge's results depend."""
        pixels = digest(self.pictures.images.tobytes(), self.pictures.labels.tobytes(), self.known.images.tobytes())
        return (self.bundle.model_id, self.bundle.settings.model_dump(exclude={"strip"}), pixels, self.seed)


def _soft(frames: Tensor, generator: torch.Generator) -> Tensor:
    return torch.sigmoid(SOFT * (frames - 0.5))
