"""Training against one-step attacks through the layer: what the paper leaves out, beside what it does.

Quantisation alone leaves the attacker every pixel that lies within ε of a threshold. A network that has seen such
pixels on the wrong side is another thing than the paper's; its rows say so by their name.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.training.recipe import Images, Labels

EPS: Final = 0.3
RATE: Final = 0.05
BATCH: Final = 128
SHIFT: Final = 2
ATTACKED: Final = 0.85
"""Share of a batch that is attacked."""


def withstand(network: nn.Module, images: Images, labels: Labels, epochs: int, seed: int) -> None:
    """Go on training `network`, frames (B, C, H, W) in [0, 1] to logits, in place, on (N, H, W, C) uint8 pictures.

    Each attacked picture gets FGSM of L∞ `EPS` from a start that is random by a random share of it, so that the start
    of the plain FGSM, the picture itself, is among them (Wong et al. 2020; the guard against learning one start alone).
    """
    chance = torch.Generator().manual_seed(seed)
    shown, truth = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.SGD(weights, RATE, momentum=0.9, nesterov=True, weight_decay=1e-4)
    steps = epochs * (len(shown) // BATCH)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        part = torch.randint(len(shown), (BATCH,), generator=chance)
        down, right = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=chance).tolist()
        frames = (shown[part].float() / 255).roll((down, right), (2, 3))
        loss = F.cross_entropy(network(_attacked(network, frames, truth[part], chance)), truth[part])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", flush=True)


def _attacked(network: nn.Module, frames: Tensor, labels: Tensor, chance: torch.Generator) -> Tensor:
    share = torch.rand((len(frames), 1, 1, 1), generator=chance)
    start = EPS * share * (2 * torch.rand(frames.shape, generator=chance) - 1)
    point = (frames + start).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(point), labels), point)
    moved = point.detach() + EPS * (1 + 0.25 * share) * gradient.sign()
    moved = (frames + (moved - frames).clamp(-EPS, EPS)).clamp(0, 1)
    chosen = torch.rand((len(frames), 1, 1, 1), generator=chance) < ATTACKED
    return torch.where(chosen, moved, frames)
