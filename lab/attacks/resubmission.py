"""Resubmission: against a random defence, the attacker shows the same picture until one draw lets it pass."""

from __future__ import annotations

import torch
from torch import Tensor

from lab.attacks.contract import Defended, check_classes, check_request, in_batches
from schemas.errors import ConfigError


@torch.no_grad()
def shown(defended: Defended, frames: Tensor, labels: Tensor, *, times: int, generator: torch.Generator) -> Tensor:
    """Return whether each frame (B, C, H, W) in [0, 1] is classified as its label (B,), per draw: (times, B).

    Raises ConfigError for less than one draw, and as `check_request` and `check_classes` do.
    """
    if times < 1:
        raise ConfigError(f"resubmission: expected to show each picture at least once, got {times} times")
    check_request(frames, labels, None, None, "linf")
    correct = torch.zeros(times, len(frames), dtype=torch.bool, device=frames.device)
    for number in range(times):
        place = 0
        for part, part_labels, _ in in_batches(frames, labels, None):
            logits = defended(part, generator)
            check_classes(logits, part_labels)
            correct[number, place : place + len(part)] = logits.argmax(1) == part_labels
            place += len(part)
    return correct


def resubmitted(
    defended: Defended, frames: Tensor, labels: Tensor, *, times: int, generator: torch.Generator
) -> Tensor:
    """Return whether each frame is classified as its label (B,) under every one of `times` draws: (B,) bool."""
    survived: Tensor = shown(defended, frames, labels, times=times, generator=generator).all(0)
    return survived
