"""The only thread that uses the database. It retries while the database or the quarantine is unreachable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError

from consumers.database.damage import is_damaged, reason
from consumers.database.engine import LATE_S
from schemas.errors import UserError
from schemas.runtime.health import Health
from schemas.transport.backoff import Backoff

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


class Stopped(Exception):  # noqa: N818  # not a failure
    """`stop` was set during a retry."""


class DatabaseCorruptError(Exception):
    """The SQLite file is damaged or not SQLite: waiting does not help."""


class QuarantineError(Exception):
    """The quarantine's folder or object store failed: nothing that comes after its frames is recorded."""


class DatabaseThread:
    """Runs database actions one after the other, until `stop` is set.

    The conditions `database` and `quarantine` of its role hold while no action waits to be retried for that cause.
    `database` does not hold either while an action takes long: nothing is recorded meanwhile.
    """

    def __init__(
        self, engine: Engine, stop: asyncio.Event, health: Health, raises: tuple[type[Exception], ...]
    ) -> None:
        """Create the thread. `raises` are errors of actions that are no failure of the database."""
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
        """Errors of data that the database will never accept, however often it is retried."""
        self._is_late = False
        """Whether the running action has taken longer than `LATE_S`."""
        self._waiting: dict[object, tuple[str, str]] = {}
        """The condition that does not hold, with its detail, of each action that is to be retried."""
        self._raises = (*raises, UserError, *self.poison)
        health.set("database", False, "not opened yet")

    async def run(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `action` in the thread, and retry while the database or the quarantine fails.

        Raised at once: `raises`, `UserError`, errors of the data, and `DatabaseCorruptError`. `Stopped` is raised after
        `stop` is set.
        """
        backoff = Backoff()
        this = object()
        try:
            while True:
                try:
                    result = await self._run_once(lambda: action(*args, **kwargs))
                except self._raises:
                    raise
                except Exception as error:  # drivers and object stores use many errors for an outage
                    if is_damaged(error):
                        raise DatabaseCorruptError(reason(error)) from error
                    if isinstance(error, QuarantineError):
                        self._waiting[this] = "quarantine", str(error)
                        log.warning("quarantine_unavailable", error=str(error)[:200])
                    else:
                        # Its first line alone: SQLAlchemy adds the statement with its values.
                        text = f"{type(error).__name__}: {reason(error)}"[:200]
                        self._waiting[this] = "database", text
                        log.warning("database_unavailable", error=text)
                    self._show()
                else:
                    self._waiting.pop(this, None)
                    self._show()
                    return result
                if await backoff.wait(self._stop):
                    raise Stopped
        finally:
            self._waiting.pop(this, None)

    async def _run_once(self, action: Callable[[], T]) -> T:
        """Run `action` in the thread, and show it if it takes long. The wait for its turn does not count."""
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def begin() -> T:
            loop.call_soon_threadsafe(begun.set)
            return action()

        async def notice_delay() -> None:
            await begun.wait()
            await asyncio.sleep(LATE_S)
            self._is_late = True
            self._show()

        noticing = asyncio.create_task(notice_delay(), name="late")
        try:
            return await loop.run_in_executor(self._thread, begin)
        finally:
            noticing.cancel()
            if self._is_late:
                self._is_late = False
                self._show()

    def _show(self) -> None:
        """Set the conditions. One action may succeed, such as a read, while another one still waits."""
        # A late action may also wait for the quarantine.
        late = {"database": f"an action takes longer than {LATE_S:g} s"} if self._is_late else {}
        for condition in ("database", "quarantine"):
            retried = (text for cause, text in self._waiting.values() if cause == condition)
            detail = next(retried, late.get(condition))
            self._health.set(condition, detail is None, detail or "")

    def close(self) -> None:
        """Wait for the running action; discard the waiting ones."""
        self._thread.shutdown(wait=True, cancel_futures=True)
