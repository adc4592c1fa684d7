"""Threads for the queries of pages: a page does not wait longer for a database than its visitor waits for the page."""

from __future__ import annotations

import asyncio
import math
import time
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
"""Longest wait while an abandoned query runs, and for `WARNED_S` after a slow failure. A page may need several."""
WARNED_S: Final = 10.0
"""Seconds after a failure that took longer than `SHORT_PATIENCE_S`."""


class QueryThreads(WorkerThreads):
    """Threads for queries of one database, and for short reads of its files."""

    def __init__(self, count: int, name: str, database: str) -> None:
        """`name` is the prefix of the names of the threads, `database` that of the database in errors."""
        super().__init__(count, name)
        self._database = database
        self._late: set[Future[Any]] = set()
        """Abandoned queries that still run. Each occupies its thread."""
        self._warned_until_s = -math.inf

    async def __call__(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query in one of the threads, and return its result.

        Raises BrokerError if it takes too long. If it has not begun by then, it never runs.
        """
        query = self._pool.submit(partial(action, *args, **kwargs))
        begun_s = time.monotonic()
        is_short = self._late or begun_s < self._warned_until_s
        try:
            async with asyncio.timeout(SHORT_PATIENCE_S if is_short else PATIENCE_S):
                return await asyncio.wrap_future(query)
        except TimeoutError:
            raise BrokerError(f"{self._database} does not respond") from None
        finally:
            self._note(query, time.monotonic() - begun_s)

    def _note(self, query: Future[Any], took_s: float) -> None:
        """Cancel a query that has not begun, and note one that goes on, or that failed slowly."""
        if not query.cancel() and not query.done():
            self._late.add(query)
            query.add_done_callback(self._late.discard)
        elif took_s >= SHORT_PATIENCE_S and (query.cancelled() or query.exception() is not None):
            self._warned_until_s = time.monotonic() + WARNED_S
