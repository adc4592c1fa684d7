"""Advisory locks of a PostgreSQL that several recorders share. A SQLite has one recorder, which needs none.

A lock ends with its transaction: a killed recorder leaves nothing behind, and no clock is involved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, text

_PURGE: Final = 0x706C_7075_7267_65
_PREPARE: Final = 0x706C_7072_6570
_PREPARING = text("SELECT pg_advisory_xact_lock(:key)")
_PURGING = text("SELECT pg_try_advisory_xact_lock(:key)")


def wait_to_prepare(connection: Connection) -> None:
    """Return when no other recorder creates the tables; the others wait until this transaction ends."""
    if connection.dialect.name != "sqlite":
        connection.execute(_PREPARING, {"key": _PREPARE})


@contextmanager
def purging_alone(engine: Engine) -> Iterator[bool]:
    """Yield whether only this recorder purges inside of the block, which may have several short transactions."""
    if engine.dialect.name == "sqlite":
        yield True
        return
    with engine.begin() as connection:  # it changes nothing, so it delays nobody
        yield may_purge(connection)


def may_purge(connection: Connection) -> bool:
    """Return whether only this recorder purges until this transaction ends."""
    return connection.dialect.name == "sqlite" or bool(connection.scalar(_PURGING, {"key": _PURGE}))
