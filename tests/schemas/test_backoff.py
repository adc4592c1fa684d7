"""Delays between retries: they double up to a limit, vary, and end early at a stop."""

from __future__ import annotations

import asyncio
import random

import pytest

from schemas.transport.backoff import Backoff


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each delay as long as its limit."""
    monkeypatch.setattr(random, "uniform", lambda _, bound_s: bound_s)


@pytest.mark.usefixtures("no_jitter")
def test_delays_double_up_to_the_longest_and_restart_after_a_success() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.failures == 5
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.next_s() == 0.5


@pytest.mark.usefixtures("no_jitter")
def test_a_loop_may_restart_with_one_delay_above_the_longest() -> None:
    backoff = Backoff(0.5, 3.0)
    backoff.reset(10.0)
    assert [backoff.next_s() for _ in range(2)] == [10.0, 3.0]
    backoff.reset()
    assert backoff.next_s() == 0.5


def test_delays_of_clients_that_failed_together_differ_within_half_of_the_limit() -> None:
    delays = [Backoff(1.0, 1.0).next_s() for _ in range(100)]
    assert len(set(delays)) > 1
    assert all(0.5 <= delay <= 1.0 for delay in delays)


async def test_a_wait_ends_as_soon_as_stop_is_set() -> None:
    stop, backoff = asyncio.Event(), Backoff(3600.0, 3600.0)
    waiting = asyncio.create_task(backoff.wait(stop))
    await asyncio.sleep(0)
    stop.set()
    assert await asyncio.wait_for(waiting, 30)


async def test_a_wait_without_a_stop_lasts_its_delay() -> None:
    backoff = Backoff(0.001, 0.001)
    assert not await backoff.wait(asyncio.Event())
    assert not await backoff.wait()
    assert backoff.failures == 2
