"""Calibrated confidence: the temperature, and the limit below which a verdict reads `unsure`."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

RIGHT: Final = 0.95
"""Share of right verdicts that the limit aims at."""
USUAL: Final = 0.02
"""Share of right held-out verdicts that may fall below the limit, although they are right.

A picture of no class is often less sure than nearly all labelled ones. A limit below them all would never apply.
"""
LARGEST: Final = 0.95
"""Largest limit: a network that is never sure would be silent."""
_SHARPNESS: Final = tuple(torch.logspace(-1, 3, 161, dtype=torch.float64).tolist())


class Sharpness(NamedTuple):
    """An inverse temperature, and the loss that it leaves."""

    factor: float
    loss: float


def sharpness_of(scores: Tensor, right: Tensor, *, smoothed: bool = True) -> Sharpness:
    """Return the factor (Guo et al. 2017) that fits held-out scores (n, C) to the right classes best by cross-entropy.

    `right` is (n, C), True at the classes that are right. `smoothed` takes Platt's targets (1999), (n + 1) / (n + 2)
    for the right ones: a few right verdicts do not prove certainty.
    """
    count, classes = scores.shape
    smoothing = classes / (classes - 1) / (count + 2) if smoothed else 0.0

    def loss(factor: float) -> float:
        logarithms = (scores * factor).log_softmax(1)
        named = logarithms.masked_fill(~right, -torch.inf).logsumexp(1)
        return -float(((1 - smoothing) * named + smoothing * logarithms.mean(1)).mean())

    return min((Sharpness(factor, loss(factor)) for factor in _SHARPNESS), key=lambda each: each.loss)


def unsure_limit(probabilities: Tensor, labels: Tensor) -> float:
    """Return the lowest limit above which held-out verdicts are right in a share of `RIGHT`, at most `LARGEST`.

    `probabilities` (n, C) are calibrated. One wrong and one right verdict are added above every limit, so that a few
    right ones prove nothing. All but `USUAL` of the right verdicts lie above the limit's lower bound.
    """
    confidence, verdict = probabilities.max(1)
    order = confidence.argsort(descending=True)
    right = (verdict == labels)[order].double().cumsum(0)
    count = torch.arange(1, len(labels) + 1, dtype=torch.float64)
    good = torch.nonzero((right + 1) / (count + 2) >= RIGHT)[:, 0]
    if not len(good):
        return LARGEST
    floor = float(confidence[verdict == labels].quantile(USUAL))
    last = int(good[-1])
    between = 0.0 if last == len(labels) - 1 else float(confidence[order[last]] + confidence[order[last + 1]]) / 2
    return round(min(LARGEST, max(floor, between)), 3)
