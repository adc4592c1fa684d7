"""Counts kept in the database, changed in the transaction that they speak of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, Engine, select

from consumers.database.engine import Prepared, upsert
from consumers.database.tables import tallies

SCHEMA: Final = "schema_version"
FRAME_ROWS: Final = "frame_rows"
FRAME_BYTES: Final = "frame_bytes"
"""What the rows of `frames` are taken to cost, see `consumers.reading.rows.frame_bytes`."""
DEAD_LETTER_BYTES: Final = "dead_letter_bytes"
FOREIGN_BYTES: Final = "foreign_letter_bytes"
"""Of these, what the letters without a verified identity hold."""
PURGED_FOREIGN: Final = "purged_foreign"
PURGED_VERIFIED: Final = "purged_verified"
PURGED_FRAMES: Final = "purged_frames"
"""By it, stores that share a SQLite see that another has purged."""
PURGED_ALERTS: Final = "purged_alerts"
SHOWN_TO_MS: Final = "shown_to_ms"
"""Frames recorded before it are in the table `shown`; 0 where that was never written."""
FRAMES_KEPT_FROM_MS: Final = "frames_kept_from_ms"
"""Rows of `frames` recorded before it may have been purged."""


def tally(connection: Connection, name: str) -> int:
    """The count of that name, 0 when there is none."""
    return connection.scalar(select(tallies.c.value).where(tallies.c.name == name)) or 0


class Tallies:
    """Changes the counts."""

    def __init__(self, engine: Engine) -> None:
        insertion = upsert(engine, tallies)
        key = [tallies.c.name]
        value = insertion.excluded.value
        self._add = Prepared(
            engine, insertion.on_conflict_do_update(index_elements=key, set_={"value": tallies.c.value + value})
        )
        self._set = Prepared(engine, insertion.on_conflict_do_update(index_elements=key, set_={"value": value}))

    def add(self, connection: Connection, counts: Mapping[str, int]) -> None:
        """Add to each of the counts."""
        for name, value in counts.items():
            if value:
                self._add.run(connection, name=name, value=value)

    def lock(self, connection: Connection, *names: str) -> None:
        """Nobody else changes these counts until the transaction ends: what is read of them now holds until then."""
        rows = select(tallies.c.name).where(tallies.c.name.in_(names)).order_by(tallies.c.name).with_for_update()
        connection.execute(rows)

    def set(self, connection: Connection, name: str, value: int) -> None:
        """Set the count of that name."""
        self._set.run(connection, name=name, value=value)
