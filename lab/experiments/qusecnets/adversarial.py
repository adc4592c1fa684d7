"""Adversarial training behind the layer, which the paper leaves out.

With quantisation alone, the attacker can change every pixel within ε of a threshold. A network trained on such changes
differs from the paper's, and the names of its rows show that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from lab.experiments.qusecnets.box import box, worst_image
from lab.experiments.qusecnets.network import QuantisedNetwork
from lab.training.recipe import Batches, Images, Labels, Recipe, augmented_batches, fit

EPS: Final = 0.3
STEPS: Final = 3
STEP: Final = 0.5
"""Step of the attack, in widths of the box."""
ATTACKED: Final = Recipe(
    epochs=40, batch=128, peak_rate=0.05, weight_decay=1e-4, pad=1, flip=False, average_decay=0.998, bfloat16=True
)
"""The recipe of the training, which continues from a network that met no attack."""


def train_in_box(network: QuantisedNetwork, images: Images, labels: Labels, checkpoint: Path) -> QuantisedNetwork:
    """Train what is behind the layer, on (N, H, W, C) uint8 pictures, and return the whole. The layer stays."""
    network.network = fit(
        network.network, images, labels, network.normalised, ATTACKED, checkpoint, batches=attacked_batches(network)
    )
    return network


def attacked_batches(network: QuantisedNetwork) -> Batches:
    """Return a source of batches that PGD in the output box of the layer attacks, through the network of that moment.

    The batches are outputs of the layer, on the scale of 0 to 255, for a training of what is behind the layer alone.
    """

    def batches(
        images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for pictures, truth in augmented_batches(images, labels, recipe, generator):
            low, high = box(network.quantised, pictures.float() / 255, EPS)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                worst = worst_image(
                    network.behind, low, high, truth, steps=STEPS, step=STEP, chance=generator
                )  # fmt: skip
            yield 255 * worst, truth

    return batches
