"""The step from logits to verdicts."""

from __future__ import annotations

from typing import Final, NamedTuple

from torch import Tensor

from schemas.errors import StageError

BEST: Final = 3
"""Number of the best classes in a verdict."""


class Ranking(NamedTuple):
    """The best classes (B, up to `BEST`) and the best group (B,) with their probabilities; no group without groups."""

    class_ids: Tensor
    confidences: Tensor
    group_id: Tensor | None
    group_confidence: Tensor | None


def ranked(logits: Tensor, groups: Tensor | None) -> Ranking:
    """Return the ranking of logits (B, classes); `groups` is (classes, groups), 1 where a class belongs to a group.

    A group's probability is the sum of its classes'.
    """
    probabilities = logits.softmax(1)
    best = probabilities.topk(min(BEST, logits.shape[1]), 1)
    if groups is None:
        return Ranking(best.indices, best.values, None, None)
    group = (probabilities @ groups).clamp(max=1).max(1)
    return Ranking(best.indices, best.values, group.indices, group.values)


def classify(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the class index (B,) int64 and its softmax probability (B,) in [1 / classes, 1] from logits (B, classes).

    Raises StageError if `logits` is not (B, classes) with at least one class.
    """
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise StageError(f"logits: expected (B, classes), got {tuple(logits.shape)}")
    probabilities = logits.softmax(1)
    winner = logits.argmax(1)
    return winner, probabilities.gather(1, winner[:, None])[:, 0]
