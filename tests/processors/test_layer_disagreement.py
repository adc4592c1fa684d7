"""Layer disagreement: the odds are those of linear discriminant analysis, and an unknown label is never rare."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Tensor

from processors.stages.layer_disagreement import Discriminant, layer_doubt
from processors.stages.scaled_norms import doubt

CLASSES, COLUMNS = 4, 3


def discriminant(seed: int = 0) -> tuple[Discriminant, Tensor]:
    """Return a discriminant of random classes, and their common covariance."""
    chance = torch.Generator().manual_seed(seed)
    means = torch.randn(CLASSES, COLUMNS, generator=chance, dtype=torch.float64)
    root = torch.randn(COLUMNS, COLUMNS, generator=chance, dtype=torch.float64)
    covariance = root @ root.T + 0.5 * torch.eye(COLUMNS, dtype=torch.float64)
    return Discriminant("layer", means, torch.linalg.cholesky(torch.linalg.inv(covariance))), covariance


@pytest.mark.parametrize("unknown", [(), (2,)])
def test_the_odds_are_the_ratio_of_the_densities_of_normal_classes(unknown: tuple[int, ...]) -> None:
    found, covariance = discriminant()
    features = torch.randn(20, COLUMNS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    known = torch.tensor([place not in unknown for place in range(CLASSES)])
    labels = torch.arange(20) % CLASSES
    densities = np.stack(
        [multivariate_normal(mean.numpy(), covariance.numpy()).logpdf(features.numpy()) for mean in found.means], 1
    )
    odds = found.odds(features, labels, known)
    for frame, label in enumerate(labels.tolist()):
        rivals = [densities[frame, place] for place in range(CLASSES) if known[place] and place != label]
        assert float(odds[frame]) == pytest.approx((densities[frame, label] - max(rivals)) / math.log(2), abs=1e-9)
        # The odds against the best rival bound the odds against all rivals together.
        assert float(odds[frame]) * math.log(2) >= densities[frame, label] - logsumexp(rivals) - 1e-9


def test_the_doubt_is_low_if_the_layers_indicate_another_class() -> None:
    pairs = [discriminant(seed)[0] for seed in (0, 1)]
    known = torch.ones(CLASSES, dtype=torch.bool)
    labels = torch.arange(CLASSES)
    own = layer_doubt([each.means for each in pairs], labels, known, pairs)
    wrong = layer_doubt([each.means for each in pairs], (labels + 1) % CLASSES, known, pairs)
    assert bool((own > 1).all())
    assert bool((wrong < 1).all())
    mean = (pairs[0].odds(pairs[0].means, labels, known) + pairs[1].odds(pairs[1].means, labels, known)) / 2
    torch.testing.assert_close(own, doubt(-mean))


def test_an_unknown_label_or_one_without_a_rival_is_not_rare() -> None:
    found, _ = discriminant()
    largest = float(doubt(torch.tensor([-torch.inf])))
    for known, label in (([True, True, True, False], 3), ([True, False, False, False], 0)):
        seen = layer_doubt([found.means[:1] + 100], torch.tensor([label]), torch.tensor(known), [found])
        assert float(seen) == largest
        assert math.isfinite(largest)


def test_the_odds_of_a_frame_do_not_depend_on_its_batch() -> None:
    found, _ = discriminant()
    single = Discriminant("layer", found.means.float(), found.whitening.float())
    features = 30 + torch.randn(64, COLUMNS, generator=torch.Generator().manual_seed(2))
    labels, known = torch.zeros(64, dtype=torch.int64), torch.ones(CLASSES, dtype=torch.bool)
    together = single.odds(features, labels, known)
    alone = torch.cat([single.odds(features[i : i + 1], labels[:1], known) for i in range(64)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-3)
    exact = found.odds(features.double(), labels, known)
    torch.testing.assert_close(together.double(), exact, rtol=1e-3, atol=1e-2)
