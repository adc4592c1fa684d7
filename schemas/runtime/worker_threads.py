"""Threads for blocking actions, called from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class WorkerThreads:
    """Threads for blocking actions of one kind: a slow action delays no action of another kind."""

    def __init__(self, count: int, name: str) -> None:
        """`name` is the prefix of the names of the threads."""
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def __call__(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an action in one of the threads, and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: action(*args, **kwargs))

    def close(self, *, wait: bool = True) -> None:
        """Cancel the actions that have not begun, and wait for the others if `wait`."""
        self._pool.shutdown(wait=wait, cancel_futures=True)
