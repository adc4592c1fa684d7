"""Verdicts of figures by their bounds."""

from __future__ import annotations

import pytest

from lab.results.bounds import reached


@pytest.mark.parametrize(
    ("must", "aim", "measured", "verdict"),
    [
        ("≥ .78", "≥ .90", "0.857 [0.812, 0.892] of 300", "must"),
        ("≥ .78", "≥ .90", "0.633 [0.577, 0.686] of 300", "missed"),
        ("≥ .98", "1", "1.000 of 300", "aim"),
        ("≤ 90 s", "45 s", "59.5 s (2 processes)", "must"),
        ("≤ 90 s", "45 s", "44.0 s", "aim"),
        ("≥ 30,000", "–", "31624 (29 µs)", "must"),
        ("≤ 1; ≤ 5 %", "–", "at most 0.5; at most 5.1 %", "missed"),
        ("0", "–", "0 of 377", "must"),
        ("0", "–", "3 of 377", "missed"),
        ("0 skipped, 0 lost", "–", "0 skipped, 245 shed, 0 lost", "must"),
        ("0 skipped, 0 lost", "–", "0 skipped, 245 shed, 1 lost", "missed"),
        ("≤ 2 ×", "–", "0.40 → 0.80 s", "must"),
        ("≤ 2 ×", "–", "0.40 → 0.81 s", "missed"),
        ("≤ 2 × (before: not measured)", "–", "0.76 s", ""),
        ("< 3", "–", "3.0", "missed"),
        ("every frame once", "–", "377 of 377", ""),
        ("≥ 4", "≥ 10", "not measured", ""),
        ("–", "–", "0.5", ""),
    ],
)
def test_a_figure_reaches_the_better_bound_that_it_meets(must: str, aim: str, measured: str, verdict: str) -> None:
    assert reached(must, aim, measured) == verdict


def test_another_unit_than_that_of_the_bound_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected the unit of its bound '≤ 2 s'"):
        reached("≤ 2 s", "–", "300 ms")
