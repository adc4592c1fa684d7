"""Layer disagreement: do earlier layers of the network see another class than the one that it returns?

A trigger changes the answer late. The layers before the last ones still see the picture's own class. In each of some
earlier layers, linear discriminant analysis (Fisher 1936, for several classes: Rao 1948) of clean frames gives the odds
of the returned label against the best other class. Mo et al. 2024, "Robust Backdoor Detection for Deep Learning via
Topological Evolution Dynamics", follow a frame through all layers by the ranks of its nearest neighbours, for which all
clean frames have to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from processors.stages.scaled_norms import doubt


@dataclass(frozen=True)
class Discriminant:
    """The classes of clean frames in one `layer`, with one covariance for all.

    `means` (classes, D) are those of each label. `whitening` (D, K) maps differences to K numbers with the identity as
    their covariance.
    """

    layer: str
    means: Tensor
    whitening: Tensor

    def odds(self, features: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        """Return the log-odds (B,) in octaves of `labels` (B,) against the best other class, by features (B, D).

        Only classes that are `known` (classes,) count. The odds are infinite without another one. Classes have equal
        prior probabilities.
        """
        seen, usual = features @ self.whitening, self.means @ self.whitening
        # The other mode subtracts large numbers, and its result depends on the size of the batch.
        apart = torch.cdist(seen, usual, compute_mode="donot_use_mm_for_euclid_dist").square()
        own = apart.gather(1, labels[:, None])[:, 0]
        others = apart.masked_fill(~known, torch.inf).scatter(1, labels[:, None], torch.inf)
        return (others.amin(1) - own) / (2 * math.log(2))


def layer_doubt(
    features: Sequence[Tensor], labels: Tensor, known: Tensor, discriminants: Sequence[Discriminant]
) -> Tensor:
    """Return the doubt (B,) of earlier layers in the best other class than `labels` (B,): low for a trigger.

    It is that of the mean odds of all layers, see `processors.stages.scaled_norms.doubt`. `features` has (B, D) for
    each of `discriminants`. A label that is not `known` (classes,) is not judged: the doubt is the largest.
    """
    odds = torch.stack(
        [each.odds(some, labels, known) for each, some in zip(discriminants, features, strict=True)]
    ).mean(0)
    return doubt(-torch.where(known[labels], odds, torch.inf))
