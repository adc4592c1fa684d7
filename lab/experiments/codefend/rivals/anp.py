"""ANP (Wu and Wang 2021, "Adversarial neuron pruning purifies backdoored deep models").

Neurons of a backdoor are those that a small perturbation of their weights turns towards the target. A mask for each
neuron learns to resist the worst perturbation, and neurons with a small mask are pruned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lab.data import LabelledPictures, to_frames
from lab.experiments.codefend.rivals.fine_pruning import LARGEST_LOSS
from lab.repair.inputs import copied, trainable_copy
from lab.repair.tuning import CPU, with_network
from processors.bundle import Bundle
from schemas.errors import ConfigError

THRESHOLDS = tuple(step / 20 for step in range(19, 0, -1))
"""Masks below a threshold are pruned. The largest threshold counts that loses at most `LARGEST_LOSS` on `clean`."""


@dataclass(frozen=True)
class Masking:
    """The settings of the paper's code, except for fewer and smaller batches, and a tenth of its rate.

    At the paper's rate, most masks of a ResNet-20 vanish in 200 steps.
    """

    steps: int = 200
    batch: int = 50
    rate: float = 0.02
    momentum: float = 0.9
    noise: float = 0.4
    """Largest relative perturbation of a neuron's weight and bias."""
    natural: float = 0.2
    """Weight of the loss without the perturbation."""
    seed: int = 0


def adversarially_pruned(sick: Bundle, clean: LabelledPictures, settings: Masking) -> Bundle:
    """Prune the neurons of `sick` whose mask stays below the largest threshold that `clean` allows."""
    frames, labels = to_frames(clean.images, CPU), torch.from_numpy(clean.labels)
    masks = learned_masks(sick, frames, labels, settings)
    network = trainable_copy(sick).requires_grad_(False)

    def accuracy(bundle: Bundle) -> float:
        with torch.inference_mode():
            return float((bundle.logits(frames).argmax(1) == labels).float().mean())

    least = accuracy(sick) - LARGEST_LOSS
    for threshold in THRESHOLDS:
        cut = with_network(sick, pruned(network, masks, threshold))
        if accuracy(cut) >= least:
            return cut
    return with_network(sick, network)


def pruned(network: nn.Module, masks: dict[str, Tensor], threshold: float) -> nn.Module:
    """Return a copy of `network` in which neurons with a mask below `threshold` have no weight."""
    network = copied(network)
    for name, mask in masks.items():
        weight = network.get_parameter(f"{name}.weight")
        weight.data[mask < threshold] = 0
    return network


def learned_masks(sick: Bundle, frames: Tensor, labels: Tensor, settings: Masking) -> dict[str, Tensor]:
    """Return a mask in [0, 1] for each neuron, (channels,), by the name of its batch norm.

    Equation 4 of the paper: the masks minimise a mixture of the loss and of the loss under the worst perturbation of
    the neurons. The masks scale weights alone, the perturbation weights and biases. Batch norm uses the statistics of
    each batch, as in the paper's code. Raises ConfigError without a batch norm.
    """
    network = trainable_copy(sick).requires_grad_(False).train()
    norms = {name: norm for name, norm in network.named_modules() if isinstance(norm, nn.BatchNorm2d)}
    if not norms:
        raise ConfigError("ANP: expected a network with batch norm, found none")
    masks = {name: torch.ones(norm.num_features, requires_grad=True) for name, norm in norms.items()}
    optimiser = torch.optim.SGD(masks.values(), lr=settings.rate, momentum=settings.momentum)
    generator = torch.Generator().manual_seed(settings.seed)

    def loss(index: Tensor, noise: dict[str, Tensor]) -> Tensor:
        changed = {}
        for name, norm in norms.items():
            changed[f"{name}.weight"] = norm.weight * (masks[name] + noise[name][0])
            changed[f"{name}.bias"] = norm.bias * (1 + noise[name][1])
        perturbed = replace(sick, network=lambda x: functional_call(network, changed, (x,)))
        return F.cross_entropy(perturbed.logits(frames[index]), labels[index])

    still = {name: torch.zeros(2, len(mask)) for name, mask in masks.items()}
    for _ in range(settings.steps):
        index = torch.randperm(len(labels), generator=generator)[: settings.batch]
        start = {
            name: (settings.noise * (2 * torch.rand(2, len(mask), generator=generator) - 1)).requires_grad_()
            for name, mask in masks.items()
        }
        worst = worst_noise(loss(index, start), start, settings.noise)
        optimiser.zero_grad()
        total = settings.natural * loss(index, still) + (1 - settings.natural) * loss(index, worst)
        total.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
        with torch.no_grad():
            for mask in masks.values():
                mask.clamp_(0, 1)
    return {name: mask.detach() for name, mask in masks.items()}


def worst_noise(loss: Tensor, noise: dict[str, Tensor], size: float) -> dict[str, Tensor]:
    """Return `noise`, on which `loss` depends, after one signed step up the loss within [−size, size]."""
    slopes = torch.autograd.grad(loss, list(noise.values()))
    return {
        name: (start.detach() + size * slope.sign()).clamp(-size, size)
        for (name, start), slope in zip(noise.items(), slopes, strict=True)
    }
