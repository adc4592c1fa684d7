"""The initial templates of the generator: for each target, the change that turns all pictures of one class into it.

These are universal perturbations (Moosavi-Dezfooli et al. 2017), targeted and for one source class each. A batch has a
single target, so that its gradients agree. In the generator's own batches each target has few pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lab.aigan.generator import Shape, perturbed
from lab.aigan.losses import margin_loss
from lab.aigan.opponents import Opponent

SHARED_STEPS = 80
"""Steps in which all sources of a target share one perturbation."""
OWN_STEPS = 80
SHARED_BATCH, OWN_BATCH = 4, 6
"""Pictures of each source class."""
STEP = 0.02
"""Step on a direction in [−1, 1], multiplied by the momentum gradient with mean absolute value 1."""
MOMENTUM = 0.9


def templates(
    pictures: Tensor, labels: Tensor, shape: Shape, opponent: Opponent, eps: float, confidence: float, seed: int
) -> Tensor:
    """Return directions (target, source, C, H, W) in [−1, 1], zero from a class to itself.

    `pictures` has shape (N, C, H, W) uint8, `labels` (N,) int64. The opponent is trained meanwhile, as it is by a
    generator.
    """
    by_class = [torch.nonzero(labels == source)[:, 0] for source in range(shape.classes)]
    found = torch.zeros(shape.classes, shape.classes, *shape[1:])
    for target in range(shape.classes):
        sources = [each for each in range(shape.classes) if each != target and len(by_class[each])]
        chance = torch.Generator().manual_seed((seed + 1) * 1_000 + target)
        direction, momentum = found[target], torch.zeros(shape.classes, *shape[1:])
        for step in range(SHARED_STEPS + OWN_STEPS):
            shared = step < SHARED_STEPS
            each = SHARED_BATCH if shared else OWN_BATCH
            source = torch.tensor(sources).repeat_interleave(each)
            index = torch.cat([
                by_class[of][torch.randint(len(by_class[of]), (each,), generator=chance)] for of in sources
            ])  # fmt: skip
            frames = pictures[index].float() / 255
            wanted = torch.full((len(index),), target)
            point = direction.clone().requires_grad_()
            attacked = perturbed(frames, point[source], eps)
            loss = margin_loss(opponent.logits(attacked), wanted, confidence)
            (gradient,) = torch.autograd.grad(loss, point)
            if shared:
                gradient = gradient.sum(0, keepdim=True).expand_as(gradient)
            size = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
            momentum = MOMENTUM * momentum + gradient / size
            rate = 1 - step / SHARED_STEPS / 2 if shared else 1 - (step - SHARED_STEPS) / OWN_STEPS
            direction = (direction - STEP * rate * momentum).clamp(-1, 1)
            opponent.learn(frames, attacked.detach(), 1.0)
        found[target] = direction
        found[target, target] = 0
    return found
