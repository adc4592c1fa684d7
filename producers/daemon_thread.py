"""Work that may block, in a thread that it has for itself."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def run_in_daemon_thread(work: Callable[[], Result], name: str) -> asyncio.Future[Result]:
    """Run `work` in a thread of its own and return its future.

    Not in the loop's pool: a few addresses that do not answer would take all its threads, and others would wait. Nor
    does the process wait for the thread when it ends.
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

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
