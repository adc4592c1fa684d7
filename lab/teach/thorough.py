"""Training of the upper blocks, on maps of the frozen lower ones that are computed once for each view."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.chance import seeded
from lab.teach.confidence import sharpness_of
from lab.teach.views import PLAIN
from processors.networks.taught import Taught

TRAINED: Final = 6
"""Blocks below the head that are trained."""
MOST_STEPS: Final = 400
_TRIED: Final = 3
"""Steps whose time decides how many there are."""
_BATCH: Final = 32
_RATE: Final = 5e-4
_DECAY: Final = 0.05
_SMOOTHED: Final = 0.1
_WARM: Final = 0.1
"""Share of the steps in which the rate rises."""
_PARTS: Final = 2
"""Trainings: one without a fold, which measures, and one with all labels."""


@dataclass(frozen=True)
class Trained:
    """The outcome: the network, its held-out scores on plain views, and whether they are better than the head's."""

    network: Taught
    scores: Tensor
    better: bool


def cut_of(network: Taught) -> int:
    """Return the number of lower blocks that stay frozen."""
    return max(1, len(network.blocks) - TRAINED)


def train_upper(
    head: Taught,
    start: Taught,
    maps: Tensor,
    labels: Tensor,
    folds: Tensor,
    held: Tensor,
    budget_s: float,
    seed: int,
    advance: Callable[[int], object],
) -> Trained:
    """Train the blocks above the cut of `head`, starting from its weights.

    `maps` (views, n, channels, h, w) are those of `Taught.lower` at the cut. A first training without the last fold
    measures and calibrates. It begins from `start`, a head that has not seen this fold. A second one uses all labels.
    If the first is no better than `held` (plain views · n, classes), the head's calibrated scores, the head stays as it
    is. `advance` counts `MOST_STEPS` for each training. Steps without time for them count as soon as that is known.
    """
    tested = folds == folds.max()
    with seeded(seed):
        first, steps = _trained(start, maps[:, ~tested], labels[~tested], budget_s / _PARTS, MOST_STEPS, advance)
    scores = torch.zeros_like(held)
    places = tested.repeat(PLAIN)
    found = _logits(first, maps[:PLAIN, tested]).double()
    scores[places] = found
    own = labels[tested].repeat(PLAIN)
    sharpness = sharpness_of(found, F.one_hot(own, found.shape[1]).bool()).factor
    if not _better(found * sharpness, held[places], own):
        advance(steps)
        return Trained(head, held, better=False)
    with seeded(seed):
        whole, _ = _trained(head, maps, labels, math.inf, steps, advance)
    with torch.no_grad():
        for weight in whole.classifier.parameters():
            weight.mul_(sharpness)
    return Trained(whole, scores[places] * sharpness, better=True)


def _better(found: Tensor, before: Tensor, labels: Tensor) -> bool:
    """Return whether scores are right more often, or as often and more likely."""

    def key(scores: Tensor) -> tuple[int, float]:
        return int((scores.argmax(1) == labels).sum()), -float(F.cross_entropy(scores, labels))

    return key(found) > key(before)


def _trained(
    head: Taught, maps: Tensor, labels: Tensor, budget_s: float, most: int, advance: Callable[[int], object]
) -> tuple[Taught, int]:
    """Return the trained copy and its number of steps, `most` without a limit of time (infinite `budget_s`).

    Batch normalisation keeps its statistics.
    """
    network, cut = copy.deepcopy(head).eval(), cut_of(head)
    network.requires_grad_(False)
    above = [*list(network.blocks)[cut:], network.head, network.classifier]
    weights = [weight.requires_grad_(True) for part in above if part is not None for weight in part.parameters()]
    optimiser = torch.optim.AdamW(
        [
            {"params": [each for each in weights if each.ndim > 1], "weight_decay": _DECAY},
            {"params": [each for each in weights if each.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=_RATE,
    )
    flat, own = maps.flatten(0, 1), labels.repeat(len(maps))
    total, step, order = most, 0, torch.empty(0, dtype=torch.int64)
    started = time.monotonic()
    while step < total:
        if len(order) < _BATCH:
            order = torch.randperm(len(flat))
        some, order = order[:_BATCH], order[_BATCH:]
        warm = max(1, int(_WARM * total))
        rate = min((step + 1) / warm, (1 + math.cos(math.pi * step / total)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = _RATE * rate
        x = flat[some].float().contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(network.upper(x, cut), own[some], label_smoothing=_SMOOTHED)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
        step += 1
        advance(1)
        if step == _TRIED and math.isfinite(budget_s):
            total = min(total, max(_TRIED, int(budget_s / ((time.monotonic() - started) / _TRIED))))
            advance(_PARTS * (most - total))
    return network.requires_grad_(False), total


@torch.inference_mode()
def _logits(network: Taught, maps: Tensor) -> Tensor:
    flat = maps.flatten(0, 1)
    return torch.cat([network.upper(part.float(), cut_of(network)) for part in torch.split(flat, _BATCH)])
