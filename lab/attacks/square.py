"""The Square attack (Andriushchenko et al. 2020), L∞, on the logits' margin, without gradients.

Libraries keep the best margin of a single draw of the defence. With a random defence that is the luckiest draw, which
no later candidate exceeds. Here the current best frame is evaluated again with every candidate, under the same draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lab.attacks.contract import Defended, check_classes, check_request, in_batches, margins
from lab.attacks.squares import Better, random_squares, stripes
from schemas.errors import ConfigError


@torch.no_grad()
def square(
    defended: Defended,
    frames: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    *,
    eps: float,
    queries: int,
    generator: torch.Generator,
    samples: int = 1,
) -> Tensor:
    """Return adversarial frames (B, C, H, W) in [0, 1], not rounded, within L∞ `eps`.

    Each frame gets at most `queries` answers. Each comparison uses the mean margin over `samples` draws of the defence.
    A deterministic defence is queried once, and a frame is done when it is misclassified. Raises ConfigError for
    invalid input.
    """
    if queries < 1 or samples < 1:
        raise ConfigError(f"square: expected at least one query and one sample, got {queries} and {samples}")
    check_request(frames, labels, targets, eps, "linf")
    found = []
    for part, part_labels, part_targets in in_batches(frames, labels, targets):
        judge = _Judge(defended, part_labels, part_targets, samples, generator)
        start = stripes(part, eps, generator)
        if judge.draws_at_random(part):
            better: Better = judge.better_on_the_same_draws
            left, steps = judge.all_frames, queries // (2 * samples)
        else:
            judge.know(start)
            better, left, steps = judge.better_than_known, judge.unbeaten, queries - 1
        found.append(random_squares(part, start, better, left, eps=eps, steps=steps, generator=generator))
    return torch.cat(found) if found else frames.clone()


class _Judge:
    """The margins of a batch, and the best margins so far of a deterministic defence."""

    def __init__(
        self,
        defended: Defended,
        labels: Tensor,
        targets: Tensor | None,
        samples: int,
        generator: torch.Generator,
    ) -> None:
        self.defended, self.labels, self.targets = defended, labels, targets
        self.samples, self.generator = samples, generator
        self.known = torch.full(labels.shape, -torch.inf, device=labels.device)

    def draws_at_random(self, frames: Tensor) -> bool:
        """Return whether two answers to the same frames differ. Raises ConfigError for unknown classes."""
        logits = self.defended(frames, self.generator)
        check_classes(logits, self.labels, self.targets)
        return not torch.equal(logits, self.defended(frames, self.generator))

    def margin(self, frames: Tensor, rows: Tensor) -> Tensor:
        targets = None if self.targets is None else self.targets[rows]
        return margins(self.defended(frames, self.generator), self.labels[rows], targets)

    def all_frames(self) -> Tensor:
        return torch.arange(len(self.labels), device=self.labels.device)

    def better_on_the_same_draws(self, candidates: Tensor, best: Tensor, rows: Tensor) -> Tensor:
        gain = torch.zeros(len(rows), device=candidates.device)
        for _ in range(self.samples):
            state = self.generator.get_state()
            gain -= self.margin(best, rows)
            self.generator.set_state(state)
            gain += self.margin(candidates, rows)
        return gain > 0

    def unbeaten(self) -> Tensor:
        return (self.known <= 0).nonzero()[:, 0]

    def know(self, start: Tensor) -> None:
        self.known = self.margin(start, self.all_frames()).float()

    def better_than_known(self, candidates: Tensor, best: Tensor, rows: Tensor) -> Tensor:
        margin = self.margin(candidates, rows).float()
        won = margin > self.known[rows]
        self.known[rows[won]] = margin[won]
        return won
