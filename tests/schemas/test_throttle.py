"""Throttles: a minimum interval for each key."""

from __future__ import annotations

import random

from schemas.limits import MAX_CAMERAS
from schemas.runtime.throttle import Throttle


def test_a_key_is_too_soon_until_its_interval_has_passed() -> None:
    throttle: Throttle[str] = Throttle(0.5)
    assert not throttle.too_soon("a", 0.0)
    throttle.note("a", 10.0)
    assert throttle.too_soon("a", 10.0)
    assert throttle.too_soon("a", 10.49)
    assert not throttle.too_soon("a", 10.5)
    assert not throttle.too_soon("b", 10.0)
    throttle.note("a", 10.5)
    assert throttle.too_soon("a", 10.9)


def test_a_check_alone_changes_nothing() -> None:
    throttle: Throttle[str] = Throttle(1.0)
    assert not throttle.too_soon("a", 0.0)
    assert not throttle.too_soon("a", 0.0)
    throttle.note("a", 0.0)
    assert throttle.too_soon("a", 0.9)
    assert not throttle.too_soon("a", 1.0)


def test_acquiring_notes_the_time() -> None:
    throttle: Throttle[str] = Throttle(60.0)
    acquired = [now_s for now_s in (0.0, 30.0, 59.9, 60.0, 61.0, 120.0) if throttle.try_acquire("a", now_s)]
    assert acquired == [0.0, 60.0, 120.0]
    assert throttle.try_acquire("b", 61.0)


def test_beyond_the_limit_the_oldest_key_is_dropped() -> None:
    throttle: Throttle[str] = Throttle(1.0, remembered=3)
    for key in "abc":
        throttle.note(key, 0.0)
    throttle.note("a", 0.1)
    throttle.note("d", 0.2)
    # `b` is the oldest, because `a` was noted again.
    assert [key for key in "abcd" if throttle.too_soon(key, 0.3)] == ["a", "c", "d"]


def test_the_default_limit_is_the_largest_number_of_cameras() -> None:
    throttle: Throttle[int] = Throttle(1.0)
    for key in range(MAX_CAMERAS):
        throttle.note(key, 0.0)
    assert throttle.too_soon(0, 0.0)
    throttle.note(MAX_CAMERAS, 0.0)
    assert not throttle.too_soon(0, 0.0)
    assert all(throttle.too_soon(key, 0.0) for key in range(1, MAX_CAMERAS + 1))


def test_jitter_at_the_allowed_rate_passes_and_a_faster_rate_is_limited_to_it() -> None:
    chance = random.Random(0)
    even: Throttle[str] = Throttle(0.2, early_s=0.1)
    beat = [0.2 * i + chance.uniform(-0.045, 0.045) for i in range(100)]
    assert all(even.try_acquire("a", at_s) for at_s in beat)
    fast: Throttle[str] = Throttle(0.2, early_s=0.1)
    assert 100 <= sum(fast.try_acquire("a", i / 50) for i in range(1000)) <= 102
