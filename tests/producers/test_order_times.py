"""The issue times of the orders that a camera has applied."""

from __future__ import annotations

from producers.publisher.order_times import OrderTimes
from schemas.limits import MAX_AHEAD_MS

DAY_MS = 86_400_000
HOUR_MS = 3_600_000


def test_orders_of_the_present_are_new_after_an_order_of_a_clock_that_was_ahead() -> None:
    times = OrderTimes()
    for day in range(1, 50):
        times.add(day * DAY_MS)
    times.add(49 * DAY_MS + 2 * HOUR_MS)  # both clocks were an hour ahead
    now_ms = 49 * DAY_MS + HOUR_MS + 1_000
    assert times.shield_ms(now_ms) == now_ms - MAX_AHEAD_MS
    times.add(now_ms)
    assert times.newest_ms == times.shield_ms(now_ms) == now_ms


def test_an_applied_order_is_never_new_again_and_few_times_are_stored() -> None:
    times = OrderTimes()
    for day in range(1, 100):
        times.add(day * DAY_MS)
    for now_ms in (0, 50 * DAY_MS, 99 * DAY_MS, 500 * DAY_MS):
        assert all(day * DAY_MS <= times.shield_ms(now_ms) for day in range(1, 100) if day * DAY_MS <= now_ms)
    assert len(times.ranges()) <= 33
