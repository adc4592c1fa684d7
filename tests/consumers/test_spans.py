"""The spans of time of partitions."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from consumers.database.spans import DAY_MS, HOUR_MS, LARGE, Span, next_span

TIMES = st.integers(0, 400 * DAY_MS)


@given(st.lists(st.tuples(TIMES, st.integers(0, 4 * LARGE)), min_size=1, max_size=30))
def test_every_time_has_one_span_whatever_spans_exist(recorded: list[tuple[int, int]]) -> None:
    spans: list[Span] = []
    for at_ms, frames in recorded:
        if not any(span.from_ms <= at_ms < span.to_ms for span in spans):
            made = next_span(sorted(spans), at_ms)
            assert made.from_ms <= at_ms < made.to_ms
            assert made.to_ms - made.from_ms <= DAY_MS
            spans.append(made._replace(frames=frames))
    assert all(one.to_ms <= other.from_ms for one, other in pairwise(sorted(spans)))


def test_a_span_is_a_day_or_an_hour_if_a_day_would_be_large() -> None:
    at_ms = 100 * DAY_MS + 5 * HOUR_MS + 7
    for frames, length in ((0, DAY_MS), (LARGE // 24, DAY_MS), (LARGE // 24 + 1, HOUR_MS)):
        before = Span(99 * DAY_MS, 99 * DAY_MS + HOUR_MS, frames)
        assert next_span([before], at_ms) == (at_ms - at_ms % length, at_ms - at_ms % length + length, 0, 0)
    assert next_span([], at_ms) == (at_ms - 7, at_ms - 7 + HOUR_MS, 0, 0)
    before = Span(100 * DAY_MS, 100 * DAY_MS + 3 * HOUR_MS, 0)
    assert next_span([before], at_ms) == (before.to_ms, 101 * DAY_MS, 0, 0)


def test_a_span_by_a_clock_that_was_ahead_does_not_change_the_length_of_the_next_one() -> None:
    at_ms = 100 * DAY_MS
    ahead = Span(400 * DAY_MS, 401 * DAY_MS, 10)
    assert next_span([Span(at_ms - HOUR_MS, at_ms, LARGE), ahead], at_ms) == (at_ms, at_ms + HOUR_MS, 0, 0)
    assert next_span([ahead], at_ms) == (at_ms, at_ms + HOUR_MS, 0, 0)
