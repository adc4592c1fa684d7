"""Whose turn it is, where several recorders share a PostgreSQL. SQLite has one recorder: it is always its turn.

Said by the server's advisory locks, which end with the connection that holds them: nothing is left behind by a recorder
that is killed, and no clock is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Engine, text

_PURGE: Final = 0x706C_7075_7267_65
_PREPARE: Final = 0x706C_7072_6570
_PREPARING = text("SELECT pg_advisory_xact_lock(:key)")
_PURGING = text("SELECT pg_try_advisory_xact_lock(:key)")
_ALERTS = text(
    "SELECT id FROM unnest(CAST(:ids AS text[])) AS each(id) WHERE pg_try_advisory_lock(hashtextextended(id, 0))"
)
_RELEASE = text("SELECT pg_advisory_unlock_all()")


def wait_to_prepare(connection: Connection) -> None:
    """Return when nobody else makes the tables; the others wait until this transaction ends."""
    if connection.dialect.name != "sqlite":
        connection.execute(_PREPARING, {"key": _PREPARE})


def may_purge(connection: Connection) -> bool:
    """Whether nobody else purges until this transaction ends."""
    return connection.dialect.name == "sqlite" or bool(connection.scalar(_PURGING, {"key": _PURGE}))


def take_alerts(engine: Engine, alert_ids: Sequence[str]) -> set[str]:
    """Those of the alerts that nobody else publishes until `release_alerts`, or until this recorder is gone.

    Whether they are published already is to be looked up after that: who had them may have done it.
    """
    if engine.dialect.name == "sqlite":
        return set(alert_ids)
    with engine.begin() as connection:
        return set(connection.scalars(_ALERTS, {"ids": list(alert_ids)}))


def release_alerts(engine: Engine) -> None:
    """Leave those that are not published to whoever tries next."""
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            connection.execute(_RELEASE)
