"""Waiting for what is meant: the only place where a test sleeps until something holds."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable

POLL_S = 0.02
PATIENCE_S = 3.0 if "MUTANT_UNDER_TEST" in os.environ else 60.0
"""Only a defect takes so long; in a mutation run there is one in every other test."""

Condition = Callable[[], object]


async def until(
    holds: Condition | Callable[[], Awaitable[object]], what: str = "the condition", within_s: float = PATIENCE_S
) -> None:
    """Wait until `holds()`, a function or a coroutine function, gives something true; fails after `within_s` seconds.

    What `holds` raises ends the wait: a condition that can no longer come true asserts so itself.
    """
    end = time.monotonic() + within_s
    while True:
        found = holds()
        if await found if inspect.isawaitable(found) else found:
            return
        assert time.monotonic() < end, f"expected {what} within {within_s:g} s"
        await asyncio.sleep(POLL_S)


def wait_until(
    holds: Condition, what: str = "the condition", within_s: float = PATIENCE_S, every_s: float = POLL_S
) -> None:
    """`until` for tests without an event loop; what costs something to ask is asked less often."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, f"expected {what} within {within_s:g} s"
        time.sleep(every_s)
