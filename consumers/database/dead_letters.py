"""The dead letters: those of verified frames and those of strangers, each kind with its own limit.

The transaction that inserts letters also enforces the limits, so no flood can outrun the purge. Letters that anybody
can send displace only letters of the same kind. The verified letters of a camera displace none of a camera with fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, func, select, tuple_, update

from consumers.database.archive import Archive, RowKind
from consumers.database.engine import NewRows
from consumers.database.tables import DEAD_LETTERS_BY_CAMERA, dead_letters
from consumers.database.tallies import DEAD_LETTER_BYTES, FOREIGN_BYTES, PURGED_FOREIGN, PURGED_VERIFIED, Tallies, tally
from consumers.records.rows import LetterRow
from consumers.settings import Bounds

_PLACE: Final = (dead_letters.c.topic, dead_letters.c.partition, dead_letters.c.offset)


def rename_topics(connection: Connection, at_ms: int, *which: ColumnElement[bool]) -> None:
    """Append `@AT_MS` to the topics of the stored letters that meet the conditions `which`; without one, of all.

    Their log is lost, and the offsets of the next one begin at 0 again: new letters need those positions.
    """
    connection.execute(update(dead_letters).where(*which).values(topic=dead_letters.c.topic.concat(f"@{at_ms}")))


class DeadLetters:
    """Writes the table `dead_letters`. For the database thread only."""

    def __init__(self, engine: Engine, archive: Archive, tallies: Tallies, bounds: Bounds) -> None:
        self._new = NewRows(engine, dead_letters)
        self._archive = archive
        self._tallies = tallies
        self._bounds = bounds

    def record(self, connection: Connection, rows: Sequence[LetterRow]) -> list[LetterRow]:
        """Insert `rows` (at least one) and delete those beyond the limits. Return the new rows."""
        by_place = {(row.topic, row.partition, row.offset): row for row in rows}
        new = [by_place[topic, partition, offset] for topic, partition, offset in self._new.insert(connection, rows)]
        foreign = sum(row.stored_bytes for row in new if not row.verified)
        total = sum(row.stored_bytes for row in new)
        self._tallies.add(connection, {DEAD_LETTER_BYTES: total, FOREIGN_BYTES: foreign})
        for verified in (False, True):
            while self._shrink(connection, verified, self._bounds, 0):
                pass
        return new

    def purge(self, connection: Connection, bounds: Bounds, before_ms: int) -> int:
        """Run one purge step for each kind: at most `bounds.purge_rows`, the oldest first.

        Beyond the bytes, the camera with the most verified letters loses its oldest.

        Return the number of deleted rows of the kind that lost the most.
        """
        return max(self._shrink(connection, verified, bounds, before_ms) for verified in (False, True))

    def bytes_held(self, connection: Connection) -> dict[str, int]:
        """Return the bytes of each kind, by their names in the metrics."""
        foreign = tally(connection, FOREIGN_BYTES)
        return {"dead_letters": tally(connection, DEAD_LETTER_BYTES) - foreign, "foreign_letters": foreign}

    def _shrink(self, connection: Connection, verified: bool, bounds: Bounds, before_ms: int) -> int:
        self._tallies.lock(connection, FOREIGN_BYTES, DEAD_LETTER_BYTES)
        held = self.bytes_held(connection)["dead_letters" if verified else "foreign_letters"]
        limit = bounds.dead_letter_bytes if verified else bounds.foreign_letter_bytes
        if held <= limit and not before_ms:
            return 0
        kind = dead_letters.c.verified == verified
        if verified and held > limit:
            kind &= dead_letters.c.camera == _noisiest(connection)
        last, gone, freed, identities = None, 0, 0, []
        oldest = (
            select(*_PLACE, dead_letters.c.camera, dead_letters.c.boot, dead_letters.c.seq)
            .add_columns(dead_letters.c.stored_bytes, dead_letters.c.recorded_ms)
            .where(kind)
            .order_by(dead_letters.c.recorded_ms, *_PLACE)
            .limit(bounds.purge_rows)
        )
        for row in connection.execute(oldest):
            if held - freed <= limit and row.recorded_ms >= before_ms:
                break
            last = (row.recorded_ms, row.topic, row.partition, row.offset)
            gone += 1
            freed += row.stored_bytes
            identities.append((row.camera, row.boot, row.seq))
        if last is not None:
            until = tuple_(dead_letters.c.recorded_ms, *_PLACE) <= last
            connection.execute(delete(dead_letters).where(and_(kind, until)))
            counts = {DEAD_LETTER_BYTES: -freed, PURGED_VERIFIED if verified else PURGED_FOREIGN: gone}
            if verified:
                self._archive.add(connection, RowKind.DEAD_LETTER, identities)
            else:
                counts[FOREIGN_BYTES] = -freed
            self._tallies.add(connection, counts)
        return gone


def _noisiest(connection: Connection) -> str:
    """Return the camera with the most verified letters. Their number is in an index, unlike their bytes."""
    camera, number = dead_letters.c.camera, func.count().desc()
    most = select(camera).where(dead_letters.c.verified).group_by(camera).order_by(number).limit(1)
    # Without statistics SQLite takes another index, and reads each row.
    return connection.scalar(most.with_hint(dead_letters, f"INDEXED BY {DEAD_LETTERS_BY_CAMERA}", "sqlite")) or ""
