"""The result of the live audit in the recorder's database: saved by the monitor, read by the console."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Engine, select

from consumers.database.engine import insert_or_replace
from consumers.database.tables import live_audit

_ONLY: Final = 1
"""The key of the only row."""


def save_result(engine: Engine, document: Mapping[str, object]) -> None:
    """Replace the saved result by a document of `LiveAudit.refresh`. Raises the errors of SQLAlchemy."""
    with engine.begin() as connection:
        connection.execute(insert_or_replace(engine, live_audit).values(only=_ONLY, document=json.dumps(document)))


def read_result(connection: Connection) -> dict[str, Any] | None:
    """Return the last saved result; None before the first."""
    document = connection.scalar(select(live_audit.c.document))
    return None if document is None else dict(json.loads(document))
