"""Drift: do frames and verdicts look like those of the calibration pictures?

The statistic is the maximum mean discrepancy (Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, equation 5) with a
Gaussian kernel. Its width is the median distance of all rows (section 8). A permutation test of both samples together
gives the limit. If window and reference come from one distribution, whatever it is, the discrepancy exceeds the limit
with a probability of `LEVEL` at most.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from processors.stages.classify import classify

LEVEL: Final = 0.01
"""Probability of an excess without drift, at most."""
PERMUTATIONS: Final = 499
GRID: Final = 8
"""Side of the grid of means that pictures are reduced to: dropped and restored pixels hardly change them."""
SHARES: Final = 16
"""Most columns of class probabilities. With more classes, those of equal number modulo this are summed."""
PICTURE_FEATURES: Final = 6
LEAST_ROWS: Final = 32
MOST_ROWS: Final = 256
"""Bounds of the number of rows of a reference: fewer prove nothing, and the time grows with their square."""
_LEAST_SPREAD: Final = 1e-3


def answer_features(classes: int) -> int:
    """Return the number of columns of `Features.answers` for this many classes."""
    return 2 + min(SHARES, classes)


class Features(NamedTuple):
    """The features of frames: `pictures` (B, `PICTURE_FEATURES`), `answers` (B, `answer_features`), float32."""

    pictures: Tensor
    answers: Tensor


class Discrepancy(NamedTuple):
    """A squared maximum mean discrepancy, and the limit that it exceeds with a probability of `LEVEL` without drift."""

    value: float
    limit: float

    @property
    def ratio(self) -> float:
        """The value ÷ the limit."""
        return self.value / max(self.limit, torch.finfo(torch.float64).tiny)


def features_of(pictures: Tensor, logits: Tensor) -> Features:
    """Return the features of the network's input (B, C, H, W) and of its logits (B, classes).

    Those of a picture come from a grid of means in [0, 1]: brightness, contrast, edges across and down, and the
    differences of red and blue from green. Those of an answer are its confidence, its entropy as a share of the
    largest, and its probabilities.
    """
    grid = adaptive_avg_pool2d(pictures.float(), GRID)
    colours = grid if grid.shape[1] == 3 else grid.expand(-1, 3, -1, -1)
    grey = colours.mean(1)
    found = (
        grey.mean((1, 2)), grey.std((1, 2)), grey.diff(dim=2).abs().mean((1, 2)), grey.diff(dim=1).abs().mean((1, 2)),
        (colours[:, 0] - colours[:, 1]).mean((1, 2)), (colours[:, 2] - colours[:, 1]).mean((1, 2)),
    )  # fmt: skip
    probabilities = logits.float().softmax(1)
    entropy = torch.special.entr(probabilities).sum(1) / math.log(logits.shape[1])
    shares = probabilities.new_zeros(len(logits), min(SHARES, logits.shape[1]))
    shares.index_add_(1, torch.arange(logits.shape[1], device=logits.device) % SHARES, probabilities)
    answers = torch.cat([classify(logits.float())[1][:, None], entropy[:, None], shares], 1)
    return Features(torch.stack(found, 1), answers)


def discrepancy(reference: Tensor, window: Tensor, generator: torch.Generator) -> Discrepancy:
    """Compare rows of features, (n, F) of the reference and (m, F) of the window, both on the CPU and finite.

    `generator` draws the permutations. Scales and kernel width come from all rows together, so that a permutation
    changes nothing else.
    """
    rows = torch.cat([reference, window]).double()
    rows = (rows - rows.mean(0)) / rows.std(0).clamp_min(_LEAST_SPREAD)
    squared = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    apart = squared[squared > 0]
    kernel = torch.exp(-squared / (apart.median() if len(apart) else 1.0))
    first = torch.full((len(rows),), 1 / len(reference), dtype=torch.float64)
    first[len(reference) :] = -1 / len(window)
    orders = torch.rand(PERMUTATIONS, len(rows), generator=generator).argsort(1)
    weights = torch.cat([first[None], first[orders]])
    values = ((weights @ kernel) * weights).sum(1).clamp_min(0)
    rank = math.ceil((1 - LEVEL) * (PERMUTATIONS + 1))
    return Discrepancy(float(values[0]), float(values[1:].kthvalue(rank).values))
