from __future__ import annotations

import time
from itertools import count

import pytest

from tests.waiting import until, wait_until


async def test_a_condition_is_asked_again_until_it_holds() -> None:
    numbers = count()
    await until(lambda: next(numbers) == 3)
    wait_until(lambda: next(numbers) == 6)

    async def later() -> bool:
        return next(numbers) == 9

    await until(later)
    assert next(numbers) == 10


async def test_what_does_not_come_in_time_is_named() -> None:
    begun = time.monotonic()
    with pytest.raises(AssertionError, match=r"expected an answer within 0\.05 s"):
        await until(lambda: False, "an answer", 0.05)
    with pytest.raises(AssertionError, match=r"expected an answer within 0\.05 s"):
        wait_until(lambda: False, "an answer", 0.05)
    assert time.monotonic() - begun < 30
