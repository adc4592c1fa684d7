"""The step from logits to verdicts."""

from __future__ import annotations

from torch import Tensor

from schemas.errors import StageError


def classify(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the class index (B,) int64 and its softmax probability (B,) in [1 / classes, 1] from logits (B, classes).

    Raises StageError if `logits` is not (B, classes) with at least one class.
    """
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise StageError(f"logits: expected (B, classes), got {tuple(logits.shape)}")
    probabilities = logits.softmax(1)
    winner = logits.argmax(1)
    return winner, probabilities.gather(1, winner[:, None])[:, 0]
