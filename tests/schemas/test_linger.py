from __future__ import annotations

import math
from bisect import bisect_right
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.runtime.linger import BUSY_SHARE, IDLE_SHARE, MEMORY_S, Linger


def worked(linger: Linger, share: float, seconds: float, batch_s: float = 0.005, begun_s: float = 0.0) -> float:
    """Batches of `batch_s`, as many as take `share` of the time; when they end."""
    now_s, until_s = begun_s, begun_s + seconds
    while now_s < until_s:
        linger.begin(now_s)
        linger.end(now_s + batch_s)
        now_s += batch_s / share
    return now_s


def test_nothing_waits_before_the_first_batch_and_while_the_worker_is_mostly_idle() -> None:
    linger = Linger(0.02)
    assert linger.seconds(5.0) == 0
    assert linger.seconds(worked(linger, 0.2, 5.0, begun_s=5.0)) == 0


def test_all_of_it_is_waited_where_the_worker_is_busy_all_the_time() -> None:
    linger = Linger(0.02)
    assert linger.seconds(worked(linger, 1.0, 5.0)) == pytest.approx(0.02)


def test_in_between_the_wait_is_in_proportion() -> None:
    linger = Linger(0.02)
    middle = (IDLE_SHARE + BUSY_SHARE) / 2
    assert linger.seconds(worked(linger, middle, 5.0, 0.001)) == pytest.approx(0.01, rel=0.05)


def test_a_load_that_ends_is_forgotten_within_seconds() -> None:
    linger = Linger(0.02)
    end_s = worked(linger, 1.0, 5.0)
    assert linger.seconds(end_s + 4 * MEMORY_S) == 0


def test_batches_side_by_side_count_once() -> None:
    linger = Linger(1.0)
    for _ in range(3):
        linger.begin(0.0)
    linger.end(0.1)
    linger.end(0.2)
    assert linger.busy_share(10.0) == pytest.approx(1.0)
    linger.end(10.0)
    assert linger.busy_share(10.0 + MEMORY_S) == pytest.approx(math.exp(-1), rel=1e-6)


def test_one_that_does_not_adapt_always_waits() -> None:
    assert Linger(0.02, adapts=False).seconds(1.0) == 0.02


@pytest.mark.parametrize(("per_s", "waited"), [(16, 0.0), (150, 0.0), (375, 0.5), (800, 1.0)])
def test_an_item_waits_for_the_others_that_are_likely_to_come(per_s: float, waited: float) -> None:
    linger = Linger(0.01)
    for number in range(1000):
        linger.arrive(number / per_s)
    assert linger.seconds(1000 / per_s) == pytest.approx(waited * 0.01, abs=0.0005)
    assert linger.seconds(1000 / per_s + 10 * MEMORY_S) == 0


def test_a_few_items_at_once_do_not_make_a_load() -> None:
    linger = Linger(0.01)
    for second in range(20):
        for _ in range(8):  # eight cameras in phase, twice a second
            linger.arrive(second / 2)
        assert linger.seconds(second / 2) == 0


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a linger of 0 s or more, got -1"):
        Linger(-1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), max_size=30), st.floats(0, 5))
def test_the_share_is_the_exponentially_weighted_mean_of_being_busy(
    batches: list[tuple[float, float]], rest_s: float
) -> None:
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
"""What a batch of the worker below costs, and each item in it; how many it may hold."""


def served(rate: float, linger: Linger, seconds: float = 20.0) -> tuple[float, float, float]:
    """Median and 99 % of the seconds that Poisson arrivals take behind a worker, and the worker's busy share."""
    random = Random(0)
    arrivals = [random.expovariate(rate)]
    while arrivals[-1] < seconds:
        arrivals.append(arrivals[-1] + random.expovariate(rate))
    taken: list[float] = []
    free_s = busy_s = 0.0
    first = 0
    while first < len(arrivals):
        now_s = max(free_s, arrivals[first])
        while True:
            due_s = arrivals[first] + linger.seconds(now_s)
            here = bisect_right(arrivals, now_s, first, min(len(arrivals), first + BATCH))
            if now_s >= due_s or here - first == BATCH:
                break
            now_s = min(due_s, arrivals[here]) if here < len(arrivals) else due_s
        free_s = now_s + FIXED_S + EACH_S * (here - first)
        linger.begin(now_s)
        linger.end(free_s)
        busy_s += free_s - now_s
        taken += [free_s - came_s for came_s in arrivals[first:here]]
        first = here
    taken.sort()
    return taken[len(taken) // 2], taken[len(taken) * 99 // 100], busy_s / arrivals[-1]


@pytest.mark.parametrize("rate", [16, 64, 128, 256, 350])
def test_no_load_is_slower_than_behind_the_fixed_wait_and_none_overloads_the_worker(rate: float) -> None:
    fixed, adaptive = served(rate, Linger(0.02, adapts=False)), served(rate, Linger(0.02))
    assert adaptive[0] <= 1.01 * fixed[0]
    assert adaptive[1] <= 1.01 * fixed[1]
    assert adaptive[2] <= fixed[2] + 0.1
    if rate == 16:  # what a single item costs, and little more
        assert adaptive[0] < 1.01 * (FIXED_S + EACH_S)
