"""Waits of the tests, and tasks that run meanwhile: only here does a test sleep until a condition is true."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

POLL_S = 0.01
"""The first pause between two polls, in seconds. Each further pause is half as long again, up to `SLOWEST_S`."""
SLOWEST_S = 0.1
PATIENCE_S = 3.0 if "MUTANT_UNDER_TEST" in os.environ else 60.0
"""Timeout of a wait, in seconds, which only a defect exceeds. It is short in mutation runs, which are full of
defects."""

Condition = Callable[[], object]


async def until(
    condition: Condition | Callable[[], Awaitable[object]],
    expected: str = "the condition",
    within_s: float = PATIENCE_S,
) -> None:
    """Wait until `condition()`, a function or a coroutine function, returns a true value.

    Raise AssertionError after `within_s` seconds. An exception of `condition` ends the wait: a condition that can no
    longer become true raises AssertionError.
    """
    end, pause_s = time.monotonic() + within_s, POLL_S
    while True:
        result = condition()
        if await result if inspect.isawaitable(result) else result:
            return
        assert time.monotonic() < end, f"expected {expected} within {within_s:g} s"
        await asyncio.sleep(pause_s)
        pause_s = min(SLOWEST_S, 1.5 * pause_s)


def wait_until(
    condition: Condition, expected: str = "the condition", within_s: float = PATIENCE_S, every_s: float = POLL_S
) -> None:
    """Wait like `until`, in tests without an event loop. `every_s` is the shortest pause between two costly polls."""
    end, pause_s = time.monotonic() + within_s, every_s
    while not condition():
        assert time.monotonic() < end, f"expected {expected} within {within_s:g} s"
        time.sleep(pause_s)
        pause_s = max(every_s, min(SLOWEST_S, 1.5 * pause_s))


@asynccontextmanager
async def running(work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run `work`, which would never return, in a task until the end of the block, and cancel it then.

    Raise the error of work that fails, and AssertionError if it returns or does not end soon after its cancellation.
    """
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        has_ended = task.done()
        task.cancel()
        await asyncio.wait({task}, timeout=PATIENCE_S)
        assert task.done(), "expected the task to end soon after its cancellation"
        if not task.cancelled():
            task.result()
            has_ended = True
        assert not has_ended, "expected the task to run until the end of the block"
