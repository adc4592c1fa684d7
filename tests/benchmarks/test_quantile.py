"""Quantiles of measured times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.quantile import quantile


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_the_smallest_value_that_enough_do_not_exceed(values: list[float], q: float) -> None:
    found = quantile(values, q)
    assert found in values
    assert sum(each <= found for each in values) >= q * len(values)
    assert sum(each < found for each in values) < q * len(values)


def test_no_values_have_no_quantile() -> None:
    assert quantile([], 0.5) is None
