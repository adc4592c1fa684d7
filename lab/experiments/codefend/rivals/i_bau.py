"""I-BAU (Zeng et al. 2022, "Adversarial unlearning of backdoors via implicit hypergradient").

The network θ minimises its loss on frames with the universal perturbation δ(θ) that maximises the same loss. The
derivative of δ with respect to θ is implicit, and is approximated by fixed-point iterations (Grazzi et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.data import LabelledPictures, to_frames
from lab.repair.inputs import trainable_copy
from lab.repair.tuning import CPU, with_network
from processors.bundle import Bundle


@dataclass(frozen=True)
class Unlearning:
    """The settings of the paper's code, except for the size of its batches."""

    rounds: int = 5
    batch: int = 100
    rate: float = 5e-4
    perturbing_rate: float = 10.0
    norm: float = 10.0
    """Largest L2 norm of the perturbation, on the network's normalised input."""
    patched: float = 0.01
    """Share of the frames of a batch that carry the perturbation, at least one."""
    iterations: int = 5
    fixed_point_rate: float = 0.1
    decay: float = 1e-3
    seed: int = 0


def hypergradient(
    outer: Tensor, inner: Tensor, delta: Tensor, weights: Sequence[Tensor], rate: float, iterations: int
) -> list[Tensor]:
    """Return the derivative of `outer`(δ(θ), θ), where δ(θ) minimises `inner`(δ, θ).

    Φ(δ, θ) = δ − rate · ∂inner/∂δ has the fixed point δ(θ). So dδ/dθ = (1 − ∂Φ/∂δ)⁻¹ ∂Φ/∂θ, and the inverse is applied
    to ∂outer/∂δ by `iterations` of its Neumann series (equation 4 of the paper).
    """
    direct = torch.autograd.grad(outer, [delta, *weights], allow_unused=True)
    slope = direct[0] if direct[0] is not None else torch.zeros_like(delta)
    step = delta - rate * torch.autograd.grad(inner, delta, create_graph=True)[0]
    total = slope
    for _ in range(iterations):
        total = torch.autograd.grad(step, delta, total, retain_graph=True)[0] + slope
    implicit = torch.autograd.grad(step, list(weights), total, allow_unused=True)
    return [
        sum((part for part in parts if part is not None), torch.zeros_like(weight))
        for weight, *parts in zip(weights, direct[1:], implicit, strict=True)
    ]


def unlearn_universal(sick: Bundle, clean: LabelledPictures, settings: Unlearning) -> Bundle:
    """Return a copy of `sick` after rounds of finding a universal perturbation and of unlearning it on `clean`.

    Batch norm stays as it is. The paper's code takes the inner loss of each hypergradient from its first batch, this
    one from the batch of the outer loss.
    """
    network = trainable_copy(sick)
    bundle = with_network(sick, network)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=settings.rate)
    generator = torch.Generator().manual_seed(settings.seed)
    frames, labels = to_frames(clean.images, CPU), torch.from_numpy(clean.labels)

    def perturbed(batch: Tensor, delta: Tensor) -> Tensor:
        return bundle.logits(batch + bundle.std * delta)

    def inner(batch: Tensor, wanted: Tensor, delta: Tensor) -> Tensor:
        return settings.decay * delta.square().sum() - F.cross_entropy(perturbed(batch, delta), wanted)

    for _ in range(settings.rounds):
        order = torch.split(torch.randperm(len(labels), generator=generator), settings.batch)
        delta = torch.zeros(1, *frames.shape[1:], requires_grad=True)
        for index in order:
            with torch.no_grad():
                called = bundle.logits(frames[index]).argmax(1)
            (slope,) = torch.autograd.grad(inner(frames[index], called, delta), delta)
            with torch.no_grad():
                delta -= settings.perturbing_rate * slope
        with torch.no_grad():
            delta *= (settings.norm / delta.norm().clamp_min(1e-12)).clamp_max(1)
        for index in order:
            batch, wanted = frames[index], labels[index]
            carries = torch.zeros(len(index), 1, 1, 1)
            carries[: max(1, round(settings.patched * len(index)))] = 1
            outer = F.cross_entropy(perturbed(batch, carries * delta), wanted)
            slopes = hypergradient(
                outer, inner(batch, wanted, delta), delta, weights, settings.fixed_point_rate, settings.iterations
            )
            for weight, slope in zip(weights, slopes, strict=True):
                weight.grad = slope
            optimiser.step()
    network.eval().requires_grad_(False)
    return bundle
