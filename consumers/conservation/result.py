"""The result of the live audit in the recorder's database: saved by the monitor, read by the console."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Engine, select

from consumers.database.engine import upsert
from consumers.database.tables import live_audit

_ONLY: Final = 1
"""The key of the only row."""


def save_result(engine: Engine, document: Mapping[str, object]) -> None:
    """Replace the saved result by a document of `LiveAudit.refresh`. Raises the errors of SQLAlchemy."""
    insertion = upsert(engine, live_audit).values(only=_ONLY, document=json.dumps(document))
    replaced = insertion.on_conflict_do_update(
        index_elements=[live_audit.c.only], set_={"document": insertion.excluded.document}
    )
    with engine.begin() as connection:
        connection.execute(replaced)


def read_result(connection: Connection) -> dict[str, Any] | None:
    """Return the last saved result; None before the first."""
    document = connection.scalar(select(live_audit.c.document))
    return None if document is None else dict(json.loads(document))
