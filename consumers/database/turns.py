"""Advisory locks of a PostgreSQL that several recorders share. A SQLite has one recorder, which needs none.

A lock ends with its transaction: a killed recorder leaves nothing behind, and no clock is involved.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

_PURGE: Final = 0x706C_7075_7267_65
_PREPARE: Final = 0x706C_7072_6570
_PREPARING = text("SELECT pg_advisory_xact_lock(:key)")
_PURGING = text("SELECT pg_try_advisory_xact_lock(:key)")


def wait_to_prepare(connection: Connection) -> None:
    """Return when no other recorder creates the tables; the others wait until this transaction ends."""
    if connection.dialect.name != "sqlite":
        connection.execute(_PREPARING, {"key": _PREPARE})


def may_purge(connection: Connection) -> bool:
    """Return whether only this recorder purges until this transaction ends."""
    return connection.dialect.name == "sqlite" or bool(connection.scalar(_PURGING, {"key": _PURGE}))
