"""Repeated work whose failures are logged and do not end it: polls of services that may be away at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import structlog

from schemas.errors import error_text

Result = TypeVar("Result")

log = structlog.get_logger()


async def repeat(work: Callable[[], Awaitable[object]], every_s: float, event: str) -> NoReturn:
    """Run `work` until cancelled, with pauses of `every_s`. Each failure is logged as `event`."""
    while True:
        await attempt(work, event)
        await asyncio.sleep(every_s)


async def attempt(work: Callable[[], Awaitable[Result]], event: str, **values: object) -> Result | None:
    """Return the result of `work`. A failure is logged as `event` with the `values`, and returns None."""
    try:
        return await work()
    except Exception as error:  # any error of a service or database that is away
        log.warning(event, **values, error=error_text(error))
        return None
