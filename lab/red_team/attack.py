"""Adversarial frames for a batch, by the attack of a job."""

from __future__ import annotations

import torch
from torch import Tensor

from lab.attacks.auto_attack import auto_attack
from lab.attacks.contract import Defended, margins
from lab.attacks.eot import eot_pgd, loss_gradient
from lab.attacks.hop_skip_jump import hop_skip_jump
from lab.attacks.live import attack_verdicts, verdicts
from lab.attacks.square import square
from lab.attacks.transfer import transfer
from lab.red_team.jobs import Effort


def adversarial(
    effort: Effort,
    attacked: Defended,
    frames: Tensor,
    labels: Tensor,
    targets: Tensor,
    sample: Tensor,
    eps: float,
    generator: torch.Generator,
) -> Tensor:
    """Return frames (B, C, H, W) in [0, 1] within L∞ `eps` of `frames`, not rounded to 8 bits.

    Results outside the ball are clipped into it. `targets` (B,) are used if the effort is targeted. `sample` (S, C, H,
    W) are frames of all classes as possible starts of a walk. Raises BundleError if gradients are needed and `attacked`
    gives none.
    """
    wanted = targets if effort.targeted else None
    found = _found(effort, attacked, frames, labels, wanted, sample, eps, generator).detach()
    return (frames + (found - frames).clamp(-eps, eps)).clamp(0, 1)


def _found(
    effort: Effort,
    attacked: Defended,
    frames: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    sample: Tensor,
    eps: float,
    generator: torch.Generator,
) -> Tensor:
    if effort.kind == "clean":
        return frames
    if effort.kind == "noise":
        noise = torch.randn(frames.shape, generator=generator, device=generator.device)
        return frames + eps * noise.to(frames.device)
    if effort.kind == "random-search":
        return random_search(attacked, frames, labels, eps, effort.queries, generator)
    if effort.kind == "square":
        return square(attacked, frames, labels, targets, eps=eps, queries=effort.queries, generator=generator)
    if effort.kind == "hop-skip-jump":
        return hop_skip_jump(
            attacked, frames, labels, targets, eps=eps, generator=generator, steps=effort.steps,
            evaluations=effort.queries, samples=effort.samples, starts=sample,
        )  # fmt: skip
    if effort.kind == "verdicts":
        published = verdicts(attacked)
        return attack_verdicts(published, frames, labels, targets, eps=eps, queries=effort.queries, generator=generator)
    if effort.kind == "transfer":
        source = [lambda pictures: attacked(pictures, generator)]
        return transfer(source, frames, labels, targets, eps=eps, generator=generator, steps=effort.steps)
    if effort.kind == "auto-attack":
        return auto_attack(attacked, frames, labels, eps=eps, generator=generator, version=effort.version)
    return eot_pgd(
        attacked, frames, labels, targets, eps=eps, steps=effort.steps, samples=effort.samples, generator=generator,
        step=effort.step, random_start=effort.random_start,
    )  # fmt: skip


@torch.no_grad()
def random_search(
    attacked: Defended, frames: Tensor, labels: Tensor, eps: float, tries: int, generator: torch.Generator
) -> Tensor:
    """Return the best for the attacker of `tries` random corners of the L∞ ball.

    A gradient attack that is weaker than this has no useful gradient.
    """
    best, best_margin = frames, torch.full((len(frames),), -torch.inf, device=frames.device)
    for _ in range(tries):
        signs = torch.randint(2, frames.shape, generator=generator, device=generator.device) * 2 - 1
        tried = (frames + eps * signs.to(frames)).clamp(0, 1)
        margin = margins(attacked(tried, generator), labels, None)
        better = margin > best_margin
        best = torch.where(better[:, None, None, None], tried, best)
        best_margin = torch.where(better, margin, best_margin)
    return best


def usable_gradients(attacked: Defended, frames: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return whether the loss has a finite gradient other than zero at each frame (B, C, H, W): (B,) bool."""
    gradient = loss_gradient(attacked, frames, labels, 1, generator).flatten(1)
    usable: Tensor = gradient.isfinite().all(1) & (gradient != 0).any(1)
    return usable
