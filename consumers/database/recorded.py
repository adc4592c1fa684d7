"""The recorder's database for a reader in another process, also after the recorder has replaced a damaged file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from consumers.database.damage import AWAY, reason
from consumers.database.engine import database_url, open_engine
from schemas.errors import BrokerError, StateError

log = structlog.get_logger()
P = ParamSpec("P")
T = TypeVar("T")


class RecorderDatabase:
    """Opens the database on first use, and again after its file was replaced. Thread-safe."""

    def __init__(self, url: str, connections: int = 2) -> None:
        """`connections` is the number of threads that use it, see `open_engine`."""
        self._url = url
        self._connections = connections
        place = database_url(url)
        self._file = place.database if place.get_backend_name() == "sqlite" else None
        self._lock = Lock()
        self._engine: Engine | None = None
        self._opened: tuple[int, int] | None = None

    def engine(self) -> Engine:
        """Return the engine for immediate use; call again each time. Raises StateError if the file does not exist."""
        with self._lock:
            here = self._identity()
            if self._engine is not None and here != self._opened:
                # A damaged file is renamed, and stays readable for processes that have it open.
                self._engine.dispose()
                self._engine = None
            if self._engine is None:
                self._engine = open_engine(self._url, writes=False, connections=self._connections)
                self._opened = here
            return self._engine

    def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query in a transaction of its own.

        Raises StateError if the file does not exist, or if the query fails, as with tables of another release; the log
        has the database's error then. Raises BrokerError if the database does not respond.
        """
        try:
            with self.engine().begin() as connection:
                return query(connection, *args, **kwargs)
        except AWAY as error:
            raise BrokerError("the recorder's database does not respond") from error
        except SQLAlchemyError as error:
            log.warning("records_not_read", error=reason(error))
            raise StateError("the recorder's database cannot be read: see the console's log") from error

    def _identity(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        try:
            found = Path(self._file).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None
