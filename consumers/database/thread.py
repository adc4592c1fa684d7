"""The one thread that touches the database, with patience while the database or the quarantine is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError

from consumers.database.damage import is_damaged, reason
from schemas.errors import UserError
from schemas.runtime.health import Health
from schemas.transport.backoff import Backoff

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


class Stopped(Exception):  # noqa: N818  # not a failure
    """`stop` was set while something was tried again."""


class Damaged(Exception):  # noqa: N818  # what the database is
    """The SQLite file is damaged, or is none: waiting does not mend that."""


class DatabaseThread:
    """Runs what touches the database, one after the other, until `stop` is set."""

    def __init__(
        self, engine: Engine, stop: asyncio.Event, health: Health, raises: tuple[type[Exception], ...]
    ) -> None:
        """`raises` are what actions say that is no failure of the database."""
        self._stop = stop
        self._health = health
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self.poison = (
            engine.dialect.loaded_dbapi.DataError,
            engine.dialect.loaded_dbapi.IntegrityError,
            DataError,
            IntegrityError,
            OverflowError,
        )
        """What is raised when the database will not take the data, however often it is tried."""
        self._raises = (*raises, UserError, *self.poison)
        health.set("database", False, "not opened yet")

    async def run(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `action` in the thread, again and again while the database or the quarantine fails.

        At once it raises `raises`, `UserError`, what is wrong with the data, and `Damaged`; `Stopped` once told to
        stop.
        """
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        while True:
            try:
                result = await loop.run_in_executor(self._thread, lambda: action(*args, **kwargs))
            except self._raises:
                raise
            except Exception as error:  # drivers and object stores have many names for being away
                if is_damaged(error):
                    raise Damaged(reason(error)) from error
                self._health.set("database", False, f"{type(error).__name__}: {error}")
                log.warning("database_unavailable", error=type(error).__name__, detail=str(error)[:200])
            else:
                self._health.set("database", True)
                return result
            if await backoff.wait(self._stop):
                raise Stopped

    def close(self) -> None:
        """Wait for what runs; what waits is not begun."""
        self._thread.shutdown(wait=True, cancel_futures=True)
