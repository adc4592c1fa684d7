"""Threads for the queries of pages, which wait for a database only as long as their visitors do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from consumers.console.access.connections import ANSWER_S
from schemas.errors import BrokerError
from schemas.runtime.worker_threads import WorkerThreads

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_S: Final = ANSWER_S - 3
"""Longest wait for a query. The page around it must still be rendered and sent."""
SHORT_PATIENCE_S: Final = 1.0
"""The same while an earlier query exceeds `PATIENCE_S`. A page may need several queries."""


class QueryThreads(WorkerThreads):
    """Threads for queries of one database."""

    def __init__(self, count: int, name: str, database: str) -> None:
        """`name` is the prefix of the names of the threads, `database` that of the database in errors."""
        super().__init__(count, name)
        self._database = database
        self._late: set[Future[Any]] = set()
        """Queries whose callers wait no longer. Each still occupies its thread."""

    async def __call__(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query in one of the threads, and return its result.

        Raises BrokerError if it takes too long. If it has not begun by then, it never runs.
        """
        query = self._pool.submit(partial(action, *args, **kwargs))
        try:
            async with asyncio.timeout(SHORT_PATIENCE_S if self._late else PATIENCE_S):
                return await asyncio.wrap_future(query)
        except TimeoutError:
            if not query.cancel():
                self._late.add(query)
                query.add_done_callback(self._late.discard)
            raise BrokerError(f"{self._database} does not respond") from None
