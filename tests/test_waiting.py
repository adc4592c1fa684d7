"""Waits of the tests: they poll a condition, and a timeout names it. Tasks that run meanwhile must not end early."""

from __future__ import annotations

import asyncio
import time
from itertools import count

import pytest

from tests.waiting import running, until, wait_until


async def test_a_condition_is_polled_until_it_is_true() -> None:
    numbers = count()
    await until(lambda: next(numbers) == 3)
    wait_until(lambda: next(numbers) == 6)

    async def later() -> bool:
        return next(numbers) == 9

    await until(later)
    assert next(numbers) == 10


async def test_a_timeout_names_the_expected_condition() -> None:
    begun = time.monotonic()
    with pytest.raises(AssertionError, match=r"expected an answer within 0\.05 s"):
        await until(lambda: False, "an answer", 0.05)
    with pytest.raises(AssertionError, match=r"expected an answer within 0\.05 s"):
        wait_until(lambda: False, "an answer", 0.05)
    assert time.monotonic() - begun < 30


async def test_running_work_is_cancelled_at_the_end_of_the_block_and_must_not_end_before() -> None:
    cancelled: list[str] = []

    async def end(error: Exception | None = None) -> None:
        if error is not None:
            raise error

    async def wait(*, swallows: bool) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("the work")
            if not swallows:
                raise

    async with running(wait(swallows=False)):
        await asyncio.sleep(0)
        assert not cancelled
    assert cancelled == ["the work"]
    for early in (end(), wait(swallows=True)):
        with pytest.raises(AssertionError, match="expected the task to run until the end of the block"):
            async with running(early):
                await asyncio.sleep(0)
    with pytest.raises(OSError, match="away"):
        async with running(end(OSError("away"))):
            await asyncio.sleep(0)
