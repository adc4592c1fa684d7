"""Counts in the database, changed in the same transaction as the rows that they count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, Engine, select

from consumers.database.engine import PreparedStatement, insert_or_replace, upsert
from consumers.database.tables import tallies

FRAME_ROWS: Final = "frame_rows"
FRAME_BYTES: Final = "frame_bytes"
"""Estimated bytes of the rows of `frames`, see `consumers.records.rows.frame_bytes`."""
DEAD_LETTER_BYTES: Final = "dead_letter_bytes"
FOREIGN_BYTES: Final = "foreign_letter_bytes"
"""Bytes of the letters without a verified identity."""
PURGED_FOREIGN: Final = "purged_foreign"
PURGED_VERIFIED: Final = "purged_verified"
PURGED_FRAMES: Final = "purged_frames"
"""Stores that share a SQLite database detect another's purge by this count."""
PURGED_ALERTS: Final = "purged_alerts"
SNAPSHOTS_TO_MS: Final = "camera_snapshots_to_ms"
"""Frames recorded before this time are in the table `camera_snapshots`; 0 if it was never written."""


def tally(connection: Connection, name: str) -> int:
    """Return the count with that name, 0 if it does not exist."""
    return connection.scalar(select(tallies.c.value).where(tallies.c.name == name)) or 0


class Tallies:
    """Changes the counts."""

    def __init__(self, engine: Engine) -> None:
        insertion = upsert(engine, tallies)
        total = {"value": tallies.c.value + insertion.excluded.value}
        self._add = PreparedStatement(
            engine, insertion.on_conflict_do_update(index_elements=[tallies.c.name], set_=total)
        )
        self._set = PreparedStatement(engine, insert_or_replace(engine, tallies))

    def add(self, connection: Connection, counts: Mapping[str, int]) -> None:
        """Add to each of the counts."""
        for name, value in counts.items():
            if value:
                self._add.run(connection, name=name, value=value)

    def lock(self, connection: Connection, *names: str) -> None:
        """Lock these counts until the transaction ends, so that their values stay valid."""
        rows = select(tallies.c.name).where(tallies.c.name.in_(names)).order_by(tallies.c.name).with_for_update()
        connection.execute(rows)

    def set(self, connection: Connection, name: str, value: int) -> None:
        """Set the count with that name."""
        self._set.run(connection, name=name, value=value)
