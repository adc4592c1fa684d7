"""HopSkipJump (Chen, Jordan and Wainwright 2020), by foolbox: an attack that sees the class alone.

It walks along the border of a class, so it wants one that stays. Against a defence that draws it attacks the majority
of some draws, the same at every query; who has the defence at hand can do that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.attacks.contract import Defended, Norm, check_classes, check_request, in_batches
from lab.attacks.foolbox_model import EagerTensor, HopSkipJumpAttack, PyTorchTensor, criterion, model
from lab.attacks.norms import into_l2_ball, into_linf_ball, l2
from lab.chance import seeded
from schemas.errors import ConfigError


@torch.no_grad()
def hop_skip_jump(
    defended: Defended,
    frames: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    *,
    generator: torch.Generator,
    eps: float | None = None,
    norm: Norm = "linf",
    steps: int = 20,
    evaluations: int = 100,
    samples: int = 1,
    starts: Tensor | None = None,
) -> Tensor:
    """Adversarial frames (B, C, H, W) in [0, 1], not rounded, as near as `steps` steps get in `norm`.

    A step asks `evaluations` · √number times for its direction, each time for the majority of `samples` draws. Each
    walk begins at the nearest of `starts` (S, C, H, W), else of the frames themselves, that has a wanted class; a frame
    without one comes back unchanged, as does one that errs already. With `eps`, what is further away is moved straight
    towards its frame. Raises ConfigError for what cannot be attacked.
    """
    if min(steps, evaluations, samples) < 1:
        got = f"{steps}, {evaluations} and {samples}"
        raise ConfigError(f"hop-skip-jump: expected at least one step, evaluation and sample, got {got}")
    check_request(frames, labels, targets, eps, norm)
    seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
    majority = _Majority(defended, samples, seed, generator.device)
    adversarial = frames.clone()
    place = 0
    for part, part_labels, part_targets in in_batches(frames, labels, targets):
        begins, rows = _begins(majority, part, part_labels, part_targets, part if starts is None else starts)
        if len(rows):
            attack = _Walk(steps=steps, initial_gradient_eval_steps=evaluations, constraint=norm)
            wanted = criterion(part_labels[rows], None if part_targets is None else part_targets[rows])
            with seeded(seed):  # foolbox draws from torch's common generator
                found = attack.run(model(majority, part.device), part[rows], wanted, starting_points=begins)
            adversarial[place + rows] = found
        place += len(part)
    if eps is None:
        return adversarial
    return (into_l2_ball if norm == "l2" else into_linf_ball)(adversarial, frames, eps)


class _Walk(HopSkipJumpAttack):
    """Foolbox divides the directions of a batch by their common norm, so that each step is shorter by √B."""

    def approximate_gradients(
        self, is_adversarial: Callable[[EagerTensor], EagerTensor], x_advs: EagerTensor, steps: int, delta: EagerTensor
    ) -> EagerTensor:
        together = super().approximate_gradients(is_adversarial, x_advs, steps, delta).raw
        return PyTorchTensor(together / l2(together).clamp_min(1e-12)[:, None, None, None])


class _Majority:
    """The class that most of some draws give, the same draws at every call, as logits of 0 and 1."""

    def __init__(self, defended: Defended, samples: int, seed: int, device: torch.device) -> None:
        self.defended, self.samples, self.seed, self.device = defended, samples, seed, device

    def __call__(self, frames: Tensor) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(self.seed)
        classes = []
        for _ in range(self.samples):
            logits = self.defended(frames, generator)
            classes.append(F.one_hot(logits.argmax(1), logits.shape[1]))
        votes = torch.stack(classes).sum(0)
        return F.one_hot(votes.argmax(1), votes.shape[1]).float()


def _begins(
    majority: _Majority, frames: Tensor, labels: Tensor, targets: Tensor | None, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Where to begin (b, C, H, W), and for which of the frames (b,): each is of a class that its frame wants."""

    def wanted(classes: Tensor, rows: Tensor) -> Tensor:
        return classes != labels[rows] if targets is None else classes == targets[rows]

    own, others = majority(frames), majority(starts).argmax(1)
    check_classes(own, labels, targets)
    every = torch.arange(len(frames), device=frames.device)
    fits = wanted(others[:, None], every).T
    distances = torch.cdist(frames.flatten(1), starts.flatten(1)).masked_fill(~fits, torch.inf)
    rows = (fits.any(1) & ~wanted(own.argmax(1), every)).nonzero()[:, 0]
    begins = starts[distances.argmin(1)]
    # What a frame is drawn depends on its place in the batch: those that are left must fit there.
    while len(rows):
        fit = wanted(majority(begins[rows]).argmax(1), rows)
        if fit.all():
            break
        rows = rows[fit]
    return begins[rows], rows
