from __future__ import annotations

import random

from schemas.limits import MAX_CAMERAS
from schemas.runtime.throttle import Throttle


def test_the_same_is_too_soon_until_the_stated_time_has_passed() -> None:
    throttle: Throttle[str] = Throttle(0.5)
    assert not throttle.too_soon("a", 0.0)
    throttle.note("a", 10.0)
    assert throttle.too_soon("a", 10.0)
    assert throttle.too_soon("a", 10.49)
    assert not throttle.too_soon("a", 10.5)
    assert not throttle.too_soon("b", 10.0)
    throttle.note("a", 10.5)
    assert throttle.too_soon("a", 10.9)


def test_who_asks_without_noting_changes_nothing() -> None:
    throttle: Throttle[str] = Throttle(1.0)
    assert not throttle.too_soon("a", 0.0)
    assert not throttle.too_soon("a", 0.0)
    throttle.note("a", 0.0)
    assert throttle.too_soon("a", 0.9)
    assert not throttle.too_soon("a", 1.0)


def test_who_takes_it_has_done_it() -> None:
    throttle: Throttle[str] = Throttle(60.0)
    said = [now_s for now_s in (0.0, 30.0, 59.9, 60.0, 61.0, 120.0) if throttle.try_acquire("a", now_s)]
    assert said == [0.0, 60.0, 120.0]
    assert throttle.try_acquire("b", 61.0)


def test_beyond_the_bound_the_longest_ago_is_forgotten() -> None:
    throttle: Throttle[str] = Throttle(1.0, remembered=3)
    for what in "abc":
        throttle.note(what, 0.0)
    throttle.note("a", 0.1)
    throttle.note("d", 0.2)
    # `b` is the longest ago, for `a` was done again.
    assert [what for what in "abcd" if throttle.too_soon(what, 0.3)] == ["a", "c", "d"]


def test_the_bound_holds_where_none_is_named() -> None:
    throttle: Throttle[int] = Throttle(1.0)
    for what in range(MAX_CAMERAS):
        throttle.note(what, 0.0)
    assert throttle.too_soon(0, 0.0)
    throttle.note(MAX_CAMERAS, 0.0)
    assert not throttle.too_soon(0, 0.0)
    assert all(throttle.too_soon(what, 0.0) for what in range(1, MAX_CAMERAS + 1))


def test_an_uneven_beat_at_the_allowed_rate_passes_whole_and_a_faster_one_at_that_rate() -> None:
    chance = random.Random(0)
    even: Throttle[str] = Throttle(0.2, early_s=0.1)
    beat = [0.2 * i + chance.uniform(-0.045, 0.045) for i in range(100)]
    assert all(even.try_acquire("a", at_s) for at_s in beat)
    fast: Throttle[str] = Throttle(0.2, early_s=0.1)
    assert 100 <= sum(fast.try_acquire("a", i / 50) for i in range(1000)) <= 102
