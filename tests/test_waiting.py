"""Waits of the tests: they poll a condition, and a timeout names it."""

from __future__ import annotations

import time
from itertools import count

import pytest

from tests.waiting import until, wait_until


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
