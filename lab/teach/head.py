"""A linear head by ridge regression on frozen features, and its cross-validation.

With far more features than labels, the dual form (Saunders, Gammerman and Vovk 1998) needs one small matrix of inner
products for all penalties and folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FOLDS: Final = 5
PENALTIES: Final = (0.03, 0.2, 1.0, 5.0, 20.0, 80.0)
"""Ridge penalties, relative to the mean squared length of the standardised features, which is 1."""
_LEAST: Final = 1e-3
"""Added to a feature's deviation: features that never change stay 0."""


@dataclass(frozen=True)
class Standard:
    """Mean (F,) and scale (F,) that bring features to mean 0 and mean squared length 1."""

    mean: Tensor
    scale: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Return standardised rows (n, F)."""
        return (rows - self.mean) * self.scale


def standard_of(rows: Tensor) -> Standard:
    """Return the standardisation by these rows (n, F)."""
    return Standard(rows.mean(0), 1 / ((rows.std(0) + _LEAST) * rows.shape[1] ** 0.5))


def folds_of(labels: NDArray[np.int64]) -> Tensor:
    """Return the fold of each picture (n,): contiguous fifths of each class.

    Pictures of a camera follow each other by name, and neighbours are alike: random folds would promise too much.
    """
    folds = np.zeros(len(labels), np.int64)
    for number in np.unique(labels):
        places = np.flatnonzero(labels == number)
        folds[places] = np.arange(len(places)) * FOLDS // len(places)
    return torch.from_numpy(folds)


def weights_of(labels: Tensor) -> Tensor:
    """Return weights (n,) that give every class the same sum, with mean 1."""
    counts = labels.bincount().clamp_min(1)
    return (len(labels) / ((counts > 0).sum() * counts.double()))[labels]


def solve(products: Tensor, labels: Tensor, classes: int, penalty: float) -> Tensor:
    """Return the dual weights (n, classes) for inner products (n, n) and labels (n,)."""
    targets = torch.nn.functional.one_hot(labels, classes).double() - 1 / classes
    ridge = torch.diag(penalty / weights_of(labels))
    dual: Tensor = torch.linalg.solve(products.double() + ridge, targets)
    return dual


def held_out_scores(
    products: Tensor, labels: Tensor, folds: Tensor, tested: Tensor, classes: int, penalty: float
) -> Tensor:
    """Return scores (n, classes) of the rows in `tested` (n,) bool, each from a head without the row's fold.

    `products` (n, n), `labels` (n,) and `folds` (n,) are those of all views. Other rows are 0.
    """
    scores = torch.zeros(len(labels), classes, dtype=torch.float64)
    for fold in range(FOLDS):
        fit, test = folds != fold, (folds == fold) & tested
        weights = solve(products[fit][:, fit], labels[fit], classes, penalty)
        scores[test] = products[test][:, fit].double() @ weights
    return scores
