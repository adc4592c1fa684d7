"""The Jacobian-based saliency map attack (Papernot et al. 2016): few values, each to its limit; targeted.

For a target t and every pair of values (p, q) of a frame, α = ∂Zₜ/∂p + ∂Zₜ/∂q and β = Σ_{j≠t} (∂Zⱼ/∂p + ∂Zⱼ/∂q) on
the logits Z. Of the pairs with α > 0 and β < 0 the one with the largest −α·β goes to 1 (equation 8); of those with
α < 0 and β > 0 it would go to 0 (equation 9). The paper takes one map for all steps, here each step takes the pair
that is best in either. Values that were changed, or are at the limit, are not looked at again.

The best of n(n − 1)/2 pairs is found without looking at all: in it neither value is beaten in both sensitivities by
two others, for one of those could take its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lab.attacks.contract import Logits, check_classes, check_request, in_batches, margins, require_gradients
from schemas.errors import ConfigError

PAPER_SHARE = 0.145

_BATCH = 64
_PAIRS_AT_ONCE = 2**24  # all values of a frame can be candidates


@dataclass(frozen=True)
class Jsma:
    """Changes at most the share `eps` of a frame's values, to 1 and to 0, or with `darken` False to 1 alone."""

    eps: float = PAPER_SHARE
    darken: bool = True
    name: str = "jsma"

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise ConfigError(f"jsma: expected a share of the values above 0 and at most 1, got {self.eps:g}")

    def __call__(
        self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """See `Attack`; the generator is not used. Without targets, the most likely other class is aimed at."""
        check_request(frames, labels, targets, None, "linf")
        require_gradients(logits, frames)
        found = [self._attack(logits, *part) for part in in_batches(frames, labels, targets, _BATCH)]
        return torch.cat(found) if found else frames.clone()

    def _attack(self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        current = frames.flatten(1).clone()
        untouched = torch.ones_like(current, dtype=torch.bool)
        rows = torch.arange(len(frames), device=frames.device)
        goals = targets
        for _ in range(int(current.shape[1] * self.eps) // 2):
            with torch.enable_grad():
                point = current[rows].view(-1, *frames.shape[1:]).requires_grad_()
                output = logits(point)
                if goals is None:
                    goals = output.detach().scatter(1, labels[:, None], -torch.inf).argmax(1)
                check_classes(output, labels, targets)
                missed = margins(output, labels[rows], None if targets is None else targets[rows]) <= 0
                aimed = output.gather(1, goals[rows, None]).sum()
                (alpha,) = torch.autograd.grad(aimed, point, retain_graph=True)
                (every,) = torch.autograd.grad(output.sum(), point)
            alpha, beta = alpha.flatten(1), (every - alpha).flatten(1)
            scores, pairs, limits = self._best(alpha, beta, current[rows], untouched[rows])
            moved = missed & (scores > 0)
            rows, pairs, limits = rows[moved], pairs[moved], limits[moved]
            if not len(rows):
                break
            current[rows[:, None], pairs] = limits[:, None]
            untouched[rows[:, None], pairs] = False
        return current.view_as(frames)

    def _best(self, alpha: Tensor, beta: Tensor, values: Tensor, untouched: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores, pairs = best_pairs(alpha, -beta, untouched & (values < 1))
        limits = torch.ones_like(scores)
        if self.darken:
            lower, lower_pairs = best_pairs(-alpha, beta, untouched & (values > 0))
            darker = lower > scores
            scores = torch.where(darker, lower, scores)
            pairs = torch.where(darker[:, None], lower_pairs, pairs)
            limits = torch.where(darker, 0.0, limits)
        return scores, pairs, limits


def best_pairs(gain: Tensor, harm: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs p < q of values (B, n) with the largest (gain_p + gain_q)(harm_p + harm_q), both sums above 0.

    Gives the products (B,), 0 where `allowed` (B, n) leaves no such pair, and the pairs (B, 2).
    """
    gain, harm = (each.masked_fill(~allowed, -torch.inf) for each in (gain, harm))
    gains, order = gain.sort(dim=1, descending=True, stable=True)
    harms = harm.gather(1, order)
    front = _front(harms)
    front |= _front(harms.masked_fill(front, -torch.inf))
    count = max(int(front.sum(1).max()), 2)
    chosen = front.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
    g, h = gains.gather(1, chosen), harms.gather(1, chosen)
    g = g.masked_fill(~front.gather(1, chosen), -torch.inf)
    at_once = max(1, _PAIRS_AT_ONCE // count**2)
    parts = [slice(start, start + at_once) for start in range(0, len(g), at_once)]
    found = [_best_product(g[part], h[part]) for part in parts]
    places = torch.cat([place for _, place in found])
    pairs = order.gather(1, chosen.gather(1, torch.stack((places // count, places % count), 1)))
    return torch.cat([score for score, _ in found]), pairs.sort(1).values


def _best_product(gain: Tensor, harm: Tensor) -> tuple[Tensor, Tensor]:
    both_gain, both_harm = gain[:, :, None] + gain[:, None], harm[:, :, None] + harm[:, None]
    product = torch.where((both_gain > 0) & (both_harm > 0), both_gain * both_harm, 0.0).triu(1)
    score, place = product.flatten(1).max(1)
    return score, place


def _front(harms: Tensor) -> Tensor:
    """Of values (B, n) in the order of falling gain, those that none before them equals or beats in harm."""
    best_before = harms.cummax(1).values.roll(1, 1)
    best_before[:, 0] = -torch.inf
    return harms > best_before
