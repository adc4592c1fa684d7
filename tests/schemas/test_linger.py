"""The adaptive linger: its length by load, and its effect on delays."""

from __future__ import annotations

import math
from bisect import bisect_right
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.runtime.linger import BUSY_SHARE, IDLE_SHARE, MEMORY_S, Linger


def run_batches(linger: Linger, share: float, seconds: float, batch_s: float = 0.005, begun_s: float = 0.0) -> float:
    """Run batches of `batch_s` that take `share` of the time; return the time of the last one's end."""
    now_s, until_s = begun_s, begun_s + seconds
    while now_s < until_s:
        linger.begin(now_s)
        linger.end(now_s + batch_s)
        now_s += batch_s / share
    return now_s


def test_the_linger_is_zero_before_the_first_batch_and_while_the_worker_is_mostly_idle() -> None:
    linger = Linger(0.02)
    assert linger.seconds(5.0) == 0
    assert linger.seconds(run_batches(linger, 0.2, 5.0, begun_s=5.0)) == 0


def test_the_linger_is_the_longest_while_the_worker_is_always_busy() -> None:
    linger = Linger(0.02)
    assert linger.seconds(run_batches(linger, 1.0, 5.0)) == pytest.approx(0.02)


def test_between_idle_and_busy_the_linger_is_proportional() -> None:
    linger = Linger(0.02)
    middle = (IDLE_SHARE + BUSY_SHARE) / 2
    assert linger.seconds(run_batches(linger, middle, 5.0, 0.001)) == pytest.approx(0.01, rel=0.05)


def test_the_linger_is_zero_within_seconds_after_a_load_ends() -> None:
    linger = Linger(0.02)
    end_s = run_batches(linger, 1.0, 5.0)
    assert linger.seconds(end_s + 4 * MEMORY_S) == 0


def test_concurrent_batches_count_once() -> None:
    linger = Linger(1.0)
    for _ in range(3):
        linger.begin(0.0)
    linger.end(0.1)
    linger.end(0.2)
    assert linger.busy_share(10.0) == pytest.approx(1.0)
    linger.end(10.0)
    assert linger.busy_share(10.0 + MEMORY_S) == pytest.approx(math.exp(-1), rel=1e-6)


def test_a_fixed_linger_does_not_depend_on_the_load() -> None:
    assert Linger(0.02, adapts=False).seconds(1.0) == 0.02


@pytest.mark.parametrize(("per_s", "waited"), [(16, 0.0), (150, 0.0), (375, 0.5), (800, 1.0)])
def test_the_linger_grows_with_the_rate_of_arrivals(per_s: float, waited: float) -> None:
    linger = Linger(0.01)
    for number in range(1000):
        linger.arrive(number / per_s)
    assert linger.seconds(1000 / per_s) == pytest.approx(waited * 0.01, abs=0.0005)
    assert linger.seconds(1000 / per_s + 10 * MEMORY_S) == 0


def test_small_bursts_are_no_load() -> None:
    linger = Linger(0.01)
    for second in range(20):
        for _ in range(8):  # eight cameras in phase, twice a second
            linger.arrive(second / 2)
        assert linger.seconds(second / 2) == 0


def test_a_negative_limit_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"expected a linger of 0 s or more, got -1"):
        Linger(-1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), max_size=30), st.floats(0, 5))
def test_the_busy_share_is_an_exponentially_weighted_mean(batches: list[tuple[float, float]], rest_s: float) -> None:
    linger, now_s, busy = Linger(1.0), 0.0, []
    linger.busy_share(0.0)
    for idle_s, busy_s in batches:
        linger.begin(now_s + idle_s)
        linger.end(now_s + idle_s + busy_s)
        busy.append((now_s + idle_s, now_s + idle_s + busy_s))
        now_s += idle_s + busy_s
    end_s = now_s + rest_s
    # The integral of exp(-(end - t) / memory) / memory over the busy spans.
    expected = sum(math.exp((b - end_s) / MEMORY_S) - math.exp((a - end_s) / MEMORY_S) for a, b in busy)
    assert linger.busy_share(end_s) == pytest.approx(expected, abs=1e-9)
    assert 0 <= linger.seconds(end_s) <= 1.0


FIXED_S, EACH_S, BATCH = 0.005, 0.0025, 64
"""The worker below: seconds for each batch and for each of its items, and the largest number of items in a batch."""


def simulate(rate: float, linger: Linger, seconds: float = 20.0) -> tuple[float, float, float]:
    """Return the median and 99th percentile of the seconds of Poisson arrivals at a worker, and its busy share."""
    random = Random(0)
    arrivals = [random.expovariate(rate)]
    while arrivals[-1] < seconds:
        arrivals.append(arrivals[-1] + random.expovariate(rate))
    delays: list[float] = []
    free_s = busy_s = 0.0
    first = 0
    while first < len(arrivals):
        now_s = max(free_s, arrivals[first])
        while True:
            due_s = arrivals[first] + linger.seconds(now_s)
            arrived = bisect_right(arrivals, now_s, first, min(len(arrivals), first + BATCH))
            if now_s >= due_s or arrived - first == BATCH:
                break
            now_s = min(due_s, arrivals[arrived]) if arrived < len(arrivals) else due_s
        free_s = now_s + FIXED_S + EACH_S * (arrived - first)
        linger.begin(now_s)
        linger.end(free_s)
        busy_s += free_s - now_s
        delays += [free_s - came_s for came_s in arrivals[first:arrived]]
        first = arrived
    delays.sort()
    return delays[len(delays) // 2], delays[len(delays) * 99 // 100], busy_s / arrivals[-1]


@pytest.mark.parametrize("rate", [16, 64, 128, 256, 350])
def test_the_adaptive_linger_is_never_slower_than_the_fixed_one_and_never_overloads_the_worker(rate: float) -> None:
    fixed, adaptive = simulate(rate, Linger(0.02, adapts=False)), simulate(rate, Linger(0.02))
    assert adaptive[0] <= 1.01 * fixed[0]
    assert adaptive[1] <= 1.01 * fixed[1]
    assert adaptive[2] <= fixed[2] + 0.1
    if rate == 16:  # little more than the time of a single item
        assert adaptive[0] < 1.01 * (FIXED_S + EACH_S)
