"""The Jacobian-based saliency map attack (Papernot et al. 2016): few values, each to its limit; targeted.

For a target t and every pair of values (p, q) of a frame, α = ∂Zₜ/∂p + ∂Zₜ/∂q and β = Σ_{j≠t} (∂Zⱼ/∂p + ∂Zⱼ/∂q) on the
logits Z. Of the pairs with α > 0 and β < 0, the one with the largest −α·β is set to 1 (equation 8). Of those with α < 0
and β > 0, it is set to 0 (equation 9). The paper uses one map for all steps. Here each step takes the best pair of
either map. Values that were changed or are at the limit are excluded.

The best of n(n − 1)/2 pairs is found without enumerating all. For neither value of the best pair do two others exceed
it in both sensitivities, because one of those could replace it.
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
    """JSMA that sets at most the share `eps` of a frame's values, to 1 and to 0, or only to 1 if `darken` is False."""

    eps: float = PAPER_SHARE
    darken: bool = True
    name: str = "jsma"

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise ConfigError(f"jsma: expected a share of the values above 0 and at most 1, got {self.eps:g}")

    def __call__(
        self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return adversarial frames. See `Attack`. The generator is not used.

        The default target is the most likely other class.
        """
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
    """Return the pairs p < q of values (B, n) with the largest (gain_p + gain_q)(harm_p + harm_q), both sums above 0.

    Returns the products (B,), 0 where `allowed` (B, n) leaves no such pair, and the pairs (B, 2).
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
    """Return a mask of values (B, n), sorted by falling gain, whose harm exceeds that of all before them."""
    best_before = harms.cummax(1).values.roll(1, 1)
    best_before[:, 0] = -torch.inf
    return harms > best_before
