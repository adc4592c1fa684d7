"""Blocking work in a daemon thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from schemas.runtime.abandoned import abandon

Result = TypeVar("Result")


def start_daemon_thread(work: Callable[[], object], name: str) -> None:
    """Start `work` in a daemon thread, so that work that hangs in a system call does not keep the process from ending.

    A command that ends while the work runs ends its process at once, by `end_process`. If the interpreter ended first,
    PyAV, which takes Python's lock while it waits for a camera, would crash the process.
    """
    ended: Future[None] = Future()

    def run() -> None:
        try:
            work()
        finally:
            ended.set_result(None)

    threading.Thread(target=run, name=name, daemon=True).start()
    abandon(ended)


def run_in_daemon_thread(work: Callable[[], Result], name: str) -> asyncio.Future[Result]:
    """Run `work` in its own daemon thread and return its future.

    A few addresses that do not respond would exhaust the loop's thread pool, and other work would wait. A process can
    end while its daemon threads run.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, failure: BaseException | None) -> None:
        if not future.done():
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # None is a result where there is no failure

    def run() -> None:
        try:
            outcome: tuple[Result | None, BaseException | None] = work(), None
        except BaseException as failure:
            outcome = None, failure
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, *outcome)

    start_daemon_thread(run, name)
    return future
