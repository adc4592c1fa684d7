"""HopSkipJump (Chen, Jordan and Wainwright 2020), by foolbox: an attack that needs only the predicted class.

The attack moves along the decision boundary, which must be fixed. For a random defence it attacks the majority of some
draws, the same draws at every query. An attacker who runs the defence locally can do that.
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
    """Return adversarial frames (B, C, H, W) in [0, 1], not rounded, as near as `steps` steps get in `norm`.

    The n-th step makes `evaluations` · √n queries for its direction, each answered by the majority of `samples` draws.
    Each walk begins at the nearest of `starts` (S, C, H, W), else of the frames themselves, with a wanted class. A
    frame without such a start is returned unchanged, and so is a misclassified frame. With `eps`, a result beyond the
    bound is moved straight towards its frame. Raises ConfigError for invalid input.
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
            with seeded(seed):  # foolbox draws from torch's global generator
                found = attack.run(model(majority, part.device), part[rows], wanted, starting_points=begins)
            adversarial[place + rows] = found
        place += len(part)
    if eps is None:
        return adversarial
    return (into_l2_ball if norm == "l2" else into_linf_ball)(adversarial, frames, eps)


class _Walk(HopSkipJumpAttack):
    """HopSkipJump without foolbox's normalisation over the batch, which makes each step shorter by √B."""

    def approximate_gradients(
        self, is_adversarial: Callable[[EagerTensor], EagerTensor], x_advs: EagerTensor, steps: int, delta: EagerTensor
    ) -> EagerTensor:
        together = super().approximate_gradients(is_adversarial, x_advs, steps, delta).raw
        return PyTorchTensor(together / l2(together).clamp_min(1e-12)[:, None, None, None])


class _Majority:
    """The majority class of some draws, the same draws at every call, as logits of 0 and 1."""

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
    """Return the starts (b, C, H, W) and the indices of their frames (b,). The class of a start is a wanted class for
    its frame."""

    def wanted(classes: Tensor, rows: Tensor) -> Tensor:
        return classes != labels[rows] if targets is None else classes == targets[rows]

    own, others = majority(frames), majority(starts).argmax(1)
    check_classes(own, labels, targets)
    every = torch.arange(len(frames), device=frames.device)
    fits = wanted(others[:, None], every).T
    distances = torch.cdist(frames.flatten(1), starts.flatten(1)).masked_fill(~fits, torch.inf)
    rows = (fits.any(1) & ~wanted(own.argmax(1), every)).nonzero()[:, 0]
    begins = starts[distances.argmin(1)]
    # A frame's draw depends on its place in the batch: the remaining frames must match their places.
    while len(rows):
        fit = wanted(majority(begins[rows]).argmax(1), rows)
        if fit.all():
            break
        rows = rows[fit]
    return begins[rows], rows
