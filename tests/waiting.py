"""Waiting for what is meant: the only place where a test sleeps until something holds."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable

POLL_S = 0.01
"""The first pause between two looks; each next one is half as long again, up to `SLOWEST_S`."""
SLOWEST_S = 0.1
PATIENCE_S = 3.0 if "MUTANT_UNDER_TEST" in os.environ else 60.0
"""Only a defect takes so long; in a mutation run there is one in every other test."""

Condition = Callable[[], object]


async def until(
    holds: Condition | Callable[[], Awaitable[object]], what: str = "the condition", within_s: float = PATIENCE_S
) -> None:
    """Wait until `holds()`, a function or a coroutine function, gives something true; fails after `within_s` seconds.

    What `holds` raises ends the wait: a condition that can no longer come true asserts so itself.
    """
    end, pause_s = time.monotonic() + within_s, POLL_S
    while True:
        found = holds()
        if await found if inspect.isawaitable(found) else found:
            return
        assert time.monotonic() < end, f"expected {what} within {within_s:g} s"
        await asyncio.sleep(pause_s)
        pause_s = min(SLOWEST_S, 1.5 * pause_s)


def wait_until(
    holds: Condition, what: str = "the condition", within_s: float = PATIENCE_S, every_s: float = POLL_S
) -> None:
    """`until` for tests without an event loop; what costs something to ask is asked less often."""
    end, pause_s = time.monotonic() + within_s, every_s
    while not holds():
        assert time.monotonic() < end, f"expected {what} within {within_s:g} s"
        time.sleep(pause_s)
        pause_s = max(every_s, min(SLOWEST_S, 1.5 * pause_s))
