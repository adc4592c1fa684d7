"""The statistics of probes together keep their false alarms, and each gets its part of the rate."""

from __future__ import annotations

import numpy as np
import pytest

from lab.strip.fused import Fused, fused, parts
from schemas.evidence.alarms import DISAGREEMENT, STRIP, TYPICALITY


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        ((STRIP,), [0.04]),
        ((TYPICALITY,), [0.04]),
        ((STRIP, DISAGREEMENT), [0.02, 0.02]),
        ((STRIP, TYPICALITY), [0.02, 0.02]),
        ((STRIP, DISAGREEMENT, TYPICALITY), [0.01, 0.01, 0.02]),
    ],
)
def test_typicality_gets_half_of_the_rate_and_the_others_share_the_rest(
    statistics: tuple[str, ...], expected: list[float]
) -> None:
    assert parts(0.04, statistics) == pytest.approx(expected)


def test_all_statistics_together_keep_the_false_alarms() -> None:
    chance = np.random.default_rng(0)
    known, other = (chance.gamma(4, size=(3, 20_000)) for _ in range(2))
    together = fused(known[0], known[1], known[2], 0.01)
    assert 0.002 < together.flags(other[0], other[1], other[2]).mean() < 0.0115


def test_a_frame_below_any_threshold_is_flagged() -> None:
    limits = Fused(0.5, 0.2, 0.001)
    values = np.array([[1, 1, 1], [0.4, 1, 1], [1, 0.1, 1], [1, 1, 0.0005]]).T
    assert limits.flags(values[0], values[1], values[2]).tolist() == [False, True, True, True]
    assert Fused(0.5).flags(values[0], values[1], values[2]).tolist() == [False, True, False, False]
