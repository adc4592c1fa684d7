"""Waits that end early: at an event, at a stop, after a time or by a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def wait_at_most(event: asyncio.Event, seconds: float) -> bool:
    """Wait until `event` is set, at most for these seconds. Return whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


@contextmanager
def noticing_delay(seconds: float, notice: Callable[[], object]) -> Iterator[None]:
    """Call `notice` once if the block takes longer than these seconds. The block goes on."""
    timer = asyncio.get_running_loop().call_later(seconds, notice)
    try:
        yield
    finally:
        timer.cancel()


async def ends_before(task: asyncio.Task[Any], stop: asyncio.Event, timeout_s: float | None = None) -> bool:
    """Wait for the end of `task`, at most until `stop` is set or the time is over; it is cancelled then.

    Returns whether it has ended by itself, with a result or an error: a task that has ended counts, even if `stop` is
    set too.
    """
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait((task, stopping), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return task.done()
    finally:
        await cancel(task, stopping)


async def cancel(*tasks: asyncio.Task[T]) -> list[T | BaseException]:
    """Cancel tasks and wait until all have ended. Return the result or the exception of each, in their order.

    A task that had ended keeps its result or exception.
    """
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)
