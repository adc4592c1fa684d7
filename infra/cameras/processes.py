"""The cameras of one file in several processes, one share each; a process that ends is restarted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from infra.local.process import COMMAND, Child
from schemas.transport.backoff import Backoff

_log = structlog.get_logger()

_LOOK_S: Final = 0.2
_PAUSE_S: Final = (0.5, 15.0)
_STEADY_S: Final = 30.0


async def run_processes(
    count: int,
    arguments: Callable[[int], Sequence[str]],
    logs: Path,
    final: frozenset[int],
    stop: asyncio.Event,
    end_s: float,
) -> list[int]:
    """Run `pointillist ARGUMENTS` of 1 to `count` until all have ended with a status of `final`; return their statuses.

    Once `stop` is set, the processes have `end_s` seconds for an orderly shutdown.
    """
    waiting = [_keep(number, arguments(number), logs, final, stop, end_s) for number in range(1, count + 1)]
    return list(await asyncio.gather(*waiting))


async def _keep(
    number: int, arguments: Sequence[str], logs: Path, final: frozenset[int], stop: asyncio.Event, end_s: float
) -> int:
    child = Child([*COMMAND, *arguments], logs / f"cameras-{number}.log")
    backoff = Backoff(*_PAUSE_S)
    while True:
        begun = time.monotonic()
        await asyncio.to_thread(child.start)
        status = None
        while status is None and not stop.is_set():
            await asyncio.sleep(_LOOK_S)
            status = child.poll()
        if status is None:
            status = await asyncio.to_thread(child.stop, end_s)
            return 1 if status is None else status
        if status in final or stop.is_set():
            return status
        if time.monotonic() - begun > _STEADY_S:
            backoff.reset()
        _log.error("camera_process_ended", number=number, status=status, log=str(child.log))
        if await backoff.wait(stop):
            return status
