"""Adversarial training through the layer, which the paper leaves out.

With quantisation alone, the attacker can change every pixel within ε of a threshold. A network trained on such changes
differs from the paper's, and the names of its rows show that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.experiments.qusecnets.network import QuantisedNetwork
from lab.training.recipe import Images, Labels

EPS: Final = 0.3
RATE: Final = 0.05
WARMUP_STEPS: Final = 200
BATCH: Final = 128
SHIFT: Final = 2
STEPS: Final = 3
STEP: Final = 0.2
"""Step of the attack in several steps, which begins at a random point within `EPS`."""


def withstand(network: QuantisedNetwork, images: Images, labels: Labels, epochs: int, seed: int) -> None:
    """Continue training `network`, frames (B, C, H, W) in [0, 1] to logits, in place, on (N, H, W, C) uint8 pictures.

    Half of a batch gets FGSM by the exact gradient, as from the paper's attacker. The other half gets a few steps of
    PGD past the layer (BPDA by the identity), against which no steepness of the layer masks gradients. No picture stays
    clean.
    """
    chance = torch.Generator().manual_seed(seed)
    shown, truth = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.SGD(weights, RATE, momentum=0.9, nesterov=True, weight_decay=1e-4)
    steps = epochs * (len(shown) // BATCH)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARMUP_STEPS) * (1 - step / steps)
        part = torch.randint(len(shown), (BATCH,), generator=chance)
        down, right = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=chance).tolist()
        frames, wanted = (shown[part].float() / 255).roll((down, right), (2, 3)), truth[part]
        once = one_step(network, frames[: BATCH // 2], wanted[: BATCH // 2])
        several = past_the_layer(network, frames[BATCH // 2 :], wanted[BATCH // 2 :], chance)
        loss = F.cross_entropy(network(torch.cat((once, several))), wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", flush=True)


def one_step(network: Callable[[Tensor], Tensor], frames: Tensor, labels: Tensor) -> Tensor:
    """Return FGSM of L∞ `EPS` on `frames` (B, C, H, W) in [0, 1]."""
    return (frames + EPS * _uphill(network, frames, labels).sign()).clamp(0, 1)


def past_the_layer(network: QuantisedNetwork, frames: Tensor, labels: Tensor, chance: torch.Generator) -> Tensor:
    """Return PGD of L∞ `EPS` with the identity's gradient in place of the layer's."""
    found = (frames + EPS * (2 * torch.rand(frames.shape, generator=chance) - 1)).clamp(0, 1)
    for _ in range(STEPS):
        moved = found + STEP * _uphill(network.as_if_transparent, found, labels).sign()
        found = (frames + (moved - frames).clamp(-EPS, EPS)).clamp(0, 1)
    return found


def _uphill(logits: Callable[[Tensor], Tensor], frames: Tensor, labels: Tensor) -> Tensor:
    point = frames.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits(point), labels), point)
    return gradient
