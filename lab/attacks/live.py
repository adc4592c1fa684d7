"""An attacker without key or network, who has only a camera's published verdicts: the class and its confidence.

Kafka's `pointillist.verdicts.v1` and the console's pages show both for every frame. So the attacker changes the scene
in front of the lens, one frame per query, and reads the verdict. Each frame is sent under a new mask, so a verdict is a
random draw. A camera sends 8 bits, so every query is rounded.

The search is that of the Square attack. Its score is the confidence of the wanted class. While another class is
predicted, the score is minus the confidence of that other class.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lab.attacks.contract import Defended, check_request, in_batches, to_8_bits
from lab.attacks.squares import random_squares, stripes
from schemas.errors import ConfigError

Verdicts = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""A function from frames (B, C, H, W) in [0, 1], of 8 bits, to the published class (B,) and its probability (B,)."""


def verdicts(defended: Defended) -> Verdicts:
    """Return the published verdicts of a defence that draws a fresh mask for every frame."""

    def published(frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        confidence, class_id = defended(frames, generator).float().softmax(1).max(1)
        return class_id, confidence

    return published


@torch.no_grad()
def attack_verdicts(
    published: Verdicts,
    frames: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    *,
    eps: float,
    queries: int,
    generator: torch.Generator,
    samples: int = 1,
) -> Tensor:
    """Return adversarial frames (B, C, H, W) of 8 bits within L∞ `eps`, by at most `queries` verdicts on each.

    A candidate is shown `samples` times. It replaces the best frame if its mean score is above the mean of all verdicts
    on that frame, which is shown equally often again at every step. An `eps` below 1/510 rounds to no change. Raises
    ConfigError for invalid input.
    """
    if queries < 1 or samples < 1:
        raise ConfigError(f"live: expected at least one query and one sample, got {queries} and {samples}")
    check_request(frames, labels, targets, eps, "linf")
    steps = queries // (2 * samples)
    found = []
    for part, part_labels, part_targets in in_batches(frames, labels, targets):
        watcher = _Watcher(published, part_labels, part_targets, samples, generator)
        start = stripes(part, eps, generator)
        better, left = watcher.better, watcher.all_frames
        found.append(random_squares(part, start, better, left, eps=eps, steps=steps, generator=generator))
    return to_8_bits(torch.cat(found)) if found else frames.clone()


class _Watcher:
    """A reader of verdicts that keeps their mean for each best frame."""

    def __init__(
        self,
        published: Verdicts,
        labels: Tensor,
        targets: Tensor | None,
        samples: int,
        generator: torch.Generator,
    ) -> None:
        self.published, self.labels, self.targets = published, labels, targets
        self.samples, self.generator = samples, generator
        self.sums = torch.zeros(labels.shape, device=labels.device)
        self.counts = torch.zeros_like(self.sums)

    def all_frames(self) -> Tensor:
        return torch.arange(len(self.labels), device=self.labels.device)

    def better(self, candidates: Tensor, best: Tensor, rows: Tensor) -> Tensor:
        self.sums[rows] += self._score(best, rows)
        self.counts[rows] += self.samples
        score = self._score(candidates, rows)
        won = score / self.samples > self.sums[rows] / self.counts[rows]
        self.sums[rows[won]], self.counts[rows[won]] = score[won], float(self.samples)
        return won

    def _score(self, frames: Tensor, rows: Tensor) -> Tensor:
        """Return the sum over the samples: the confidence if the verdict is wanted, otherwise minus the confidence."""
        total = torch.zeros(len(rows), device=frames.device)
        for _ in range(self.samples):
            class_id, confidence = self.published(to_8_bits(frames), self.generator)
            wanted = class_id != self.labels[rows] if self.targets is None else class_id == self.targets[rows]
            total += torch.where(wanted, confidence, -confidence)
        return total
