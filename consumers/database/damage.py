"""Unreadable databases: the drivers' errors, setting a damaged file aside, and people's decisions in it."""

from __future__ import annotations

import glob
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from consumers.database.engine import database_url, open_engine, sqlite_file
from consumers.database.tables import mutes, sighting_rules
from schemas import metrics

_DAMAGED: Final = ".damaged-"

UNREADABLE: Final = (SQLAlchemyError, sqlite3.Error)
"""Errors of an unreadable database, at the connection or later."""

AWAY: Final = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
"""Errors of a database that does not respond, or accepts no changes now."""

log = structlog.get_logger()


def reason(error: BaseException) -> str:
    """Return the driver's message in one line."""
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__


def is_damaged(error: BaseException) -> bool:
    """Return whether the file is damaged or no SQLite file: waiting does not help then."""
    code = getattr(getattr(error, "orig", None) or error, "sqlite_errorcode", 0)
    # The lowest byte is the error code; the others refine it.
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def set_aside(text: str, now_ms: int) -> Path:
    """Rename the damaged SQLite file behind the URL `text`, so that a new one can be created. Return its new name."""
    path = Path(database_url(text).database or "")
    aside = path.with_name(f"{path.name}{_DAMAGED}{now_ms}")
    path.rename(aside)
    for ending in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(aside.with_name(aside.name + ending))
    return aside


def damaged_files(path: Path) -> list[Path]:
    """Return the files next to `path` that `set_aside` has renamed and nobody has removed."""
    files = path.parent.glob(f"{glob.escape(path.name + _DAMAGED)}*")
    return sorted(file for file in files if file.name.removeprefix(path.name + _DAMAGED).isdigit())


def count_set_aside(file: Path | None, registry: CollectorRegistry) -> None:
    """Count the `damaged_files` of a SQLite file in a metric; 0 without one."""
    counted = metrics.DATABASES_SET_ASIDE.on(registry)
    if file is not None:
        counted.set_function(lambda: len(damaged_files(file)))


def last_set_aside_ms(text: str) -> int:
    """Return the Unix time in milliseconds of the newest of the `damaged_files` of the URL `text`; 0 without one."""
    path = sqlite_file(text)
    files = damaged_files(path) if path is not None else []
    return max((int(file.name.rpartition(_DAMAGED)[2]) for file in files), default=0)


def adopt_decisions(connection: Connection, aside: Path) -> None:
    """Copy the sighting rules and mutes of the SQLite file `aside` into a new database, as far as they are readable."""
    old = open_engine(str(connection.engine.url.set(database=str(aside))), writes=False)
    try:
        for table in (sighting_rules, mutes):
            try:
                with old.begin() as reading, connection.begin_nested():
                    rows = [dict(row) for row in reading.execute(select(table)).mappings()]
                    if rows:
                        connection.execute(insert(table), rows)
            except UNREADABLE as error:
                log.warning("decisions_not_adopted", table=table.name, file=str(aside), detail=reason(error))
            else:
                log.info("decisions_adopted", table=table.name, count=len(rows))
    finally:
        old.dispose()
