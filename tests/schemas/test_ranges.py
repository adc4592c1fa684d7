"""Sets of numbers as ranges."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.ranges import RangeSet

NUMBER = st.integers(0, 40)
STEPS = st.lists(st.tuples(st.sampled_from(("add", "remove")), NUMBER, st.integers(-2, 12)), max_size=30)


def check(found: RangeSet, expected: set[int]) -> None:
    assert set(found) == expected
    assert list(found) == sorted(expected)
    assert len(found) == len(expected)
    assert bool(found) == bool(expected)
    ranges = list(found.ranges())
    assert all(first <= last for first, last in ranges)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(ranges))
    assert [number in found for number in range(60)] == [number in expected for number in range(60)]


@settings(deadline=None, max_examples=300)
@given(STEPS)
def test_a_range_set_equals_a_set_with_as_few_ranges_as_possible(steps: list[tuple[str, int, int]]) -> None:
    found, expected = RangeSet(), set[int]()
    for step, first, length in steps:
        numbers = set(range(first, first + length + 1))
        if step == "add":
            found.add(first, first + length)
            expected |= numbers
        else:
            found.remove(first, first + length)
            expected -= numbers
        check(found, expected)


@settings(deadline=None, max_examples=100)
@given(st.lists(NUMBER), st.lists(NUMBER))
def test_union_and_difference_equal_those_of_sets(first: list[int], second: list[int]) -> None:
    left, right = RangeSet.of(first), RangeSet.of(second)
    check(left.minus(right), set(first) - set(second))
    left.update(right)
    check(left, set(first) | set(second))
    check(right, set(second))


class MovedList(list[int]):
    """A list that counts the elements that its changes move."""

    moved = 0

    def __setitem__(self, place: Any, value: Any) -> None:
        if isinstance(place, slice):
            MovedList.moved += len(self) - place.indices(len(self))[1]
        super().__setitem__(place, value)


def test_union_and_difference_of_single_numbers_move_each_number_at_most_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(found: RangeSet, ranges: Iterable[tuple[int, int]] = ()) -> None:
        found._firsts, found._lasts = MovedList(), MovedList()
        for first, last in ranges:
            found.add(first, last)

    monkeypatch.setattr(RangeSet, "__init__", begin)
    monkeypatch.setattr(MovedList, "moved", 0)
    count = 2000
    all_of_them = RangeSet((4 * number, 4 * number + 2) for number in range(count))
    odd = RangeSet((4 * number + 1, 4 * number + 1) for number in range(count))
    gaps = RangeSet((4 * number + 3, 4 * number + 3) for number in range(count))
    left = all_of_them.minus(odd)
    assert list(left) == [number for number in range(4 * count) if number % 2 == 0]
    assert not all_of_them.minus(all_of_them)
    left.update(odd)
    assert left == all_of_them
    left.update(gaps)
    assert list(left.ranges()) == [(0, 4 * count - 1)]
    assert MovedList.moved <= 2 * count


@given(st.lists(NUMBER))
def test_a_range_set_can_be_rebuilt_from_its_ranges(numbers: list[int]) -> None:
    found = RangeSet.of(numbers)
    assert RangeSet(reversed(list(found.ranges()))) == found
    assert found != RangeSet.of([*numbers, 99])


def test_single_numbers_are_added_and_removed() -> None:
    found = RangeSet([(3, 9)])
    found.remove(5)
    found.add(11)
    assert list(found.ranges()) == [(3, 4), (6, 9), (11, 11)]


def test_sets_with_equal_range_starts_or_ends_only_are_not_equal() -> None:
    assert RangeSet([(1, 3)]) != RangeSet([(1, 4)])
    assert RangeSet([(1, 3)]) != RangeSet([(2, 3)])
    assert RangeSet([(1, 3)]) != [(1, 3)]
    assert repr(RangeSet([(1, 3), (7, 7)])) == "RangeSet([(1, 3), (7, 7)])"


@settings(deadline=None, max_examples=200)
@given(st.sets(NUMBER), st.integers(1, 6), NUMBER)
def test_joining_adds_numbers_only_below_the_limit_and_leaves_the_requested_number_of_ranges(
    numbers: set[int], count: int, below: int
) -> None:
    found = RangeSet.of(numbers)
    before = list(found.ranges())
    found.join_nearest(count, below)
    added = set(found) - numbers
    assert numbers <= set(found)
    assert all(number < below for number in added)
    joinable = sum(first <= below for first, _ in before[1:])
    assert len(list(found.ranges())) == max(min(count, len(before)), len(before) - joinable)


def test_joining_adds_as_few_numbers_as_possible() -> None:
    found = RangeSet.of([0, 10, 12, 30])
    found.join_nearest(3, 100)
    assert list(found.ranges()) == [(0, 0), (10, 12), (30, 30)]
