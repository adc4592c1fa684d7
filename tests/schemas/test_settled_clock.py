"""The settled clock: a wall clock that counts only after an hour without a step."""

from __future__ import annotations

from schemas.runtime.settled_clock import SETTLED_S, SettledClock
from tests.clocks import Clock

YEAR_S = 366 * 86_400


def test_a_wall_clock_counts_after_an_hour_without_a_step_and_a_step_restarts_that_hour() -> None:
    monotonic, ahead = Clock(0.0), Clock(YEAR_S)
    clock = SettledClock(lambda: round(1e3 * (1e9 + ahead.now_s + monotonic.now_s)), monotonic)
    assert clock.now_ms() == 0
    monotonic.now_s = SETTLED_S - 10
    ahead.now_s = 0  # set to the right time
    assert clock.now_ms() == 0
    monotonic.now_s += SETTLED_S - 1
    assert clock.now_ms() == 0
    ahead.now_s = 60  # a small correction changes nothing
    monotonic.now_s += 1
    assert clock.now_ms() == round(1e3 * (1e9 + 60 + monotonic.now_s))
    ahead.now_s = YEAR_S
    assert clock.now_ms() == 0


def test_a_trusted_clock_counts_at_once_until_it_is_set() -> None:
    monotonic, ahead = Clock(0.0), Clock(0.0)
    clock = SettledClock(lambda: round(1e3 * (1e9 + ahead.now_s + monotonic.now_s)), monotonic)
    clock.trust()
    assert clock.now_ms() == round(1e3 * 1e9)
    ahead.now_s = YEAR_S
    assert clock.now_ms() == 0
    monotonic.now_s += SETTLED_S
    assert clock.now_ms() == round(1e3 * (1e9 + YEAR_S + SETTLED_S))
