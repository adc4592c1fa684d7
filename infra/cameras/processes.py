"""The cameras of one file in several processes, one share each; a process that ends is restarted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from infra.local.process import COMMAND, Child
from schemas.runtime.supervisor import RestartPolicy, Supervisor

_log = structlog.get_logger()


async def run_processes(
    count: int,
    arguments: Callable[[int], Sequence[str]],
    logs: Path,
    final: frozenset[int],
    stop: asyncio.Event,
    end_s: float,
    left_out: tuple[str, ...],
    without_cameras: Callable[[], set[int]],
) -> list[int]:
    """Run `pointillist ARGUMENTS` of 1 to `count` until all have ended with a status of `final`; return their statuses.

    A process that has no cameras runs on, because the file may give it some. When all others have ended, `stop` is set.
    Once `stop` is set, the processes have `end_s` seconds for an orderly shutdown. They do not inherit environment
    variables that begin with one of `left_out`: their arguments name a file with all settings.
    """
    policy = RestartPolicy(first_s=0.5, longest_s=15.0, steady_s=30.0, final=final)

    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}

    running = set(range(1, count + 1))

    async def keep(number: int) -> int:
        child = Child([*COMMAND, *arguments(number)], logs / f"cameras-{number}.log", env=environment)

        def report(status: int) -> None:
            _log.error("camera_process_ended", number=number, status=status, log=str(child.log))

        status, _ = await Supervisor(child, policy).run(stop, end_s, on_restart=report)
        running.remove(number)
        if running and not stop.is_set() and running <= await asyncio.to_thread(without_cameras):
            stop.set()
        return 1 if status is None else status

    return list(await asyncio.gather(*map(keep, range(1, count + 1))))
