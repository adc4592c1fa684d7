"""The frames in SQLite: the identity is the primary key, and a purged frame leaves its identity in the archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, delete, func, select, tuple_

from consumers.database.archive import Archive, RowKind
from consumers.database.engine import NewRows, PreparedStatement, upsert
from consumers.database.frames import Excess
from consumers.database.tables import boots, frames
from consumers.database.tallies import FRAME_BYTES, FRAME_ROWS, PURGED_FRAMES, Tallies
from consumers.records.batch import BootKey, FrameKey
from consumers.records.rows import FrameRow, bytes_of


class FramesByKey:
    """Writes the table `frames` of a SQLite database, which belongs to one recorder."""

    def __init__(self, engine: Engine, archive: Archive, tallies: Tallies, *, alone: bool) -> None:
        self._archive = archive
        self._alone = alone
        self._tallies = tallies
        self._new = NewRows(engine, frames)
        insertion = upsert(engine, boots)
        counted = insertion.on_conflict_do_update(
            index_elements=[boots.c.camera, boots.c.boot],
            set_={
                "frames": boots.c.frames + insertion.excluded.frames,
                "duplicates": boots.c.duplicates + insertion.excluded.duplicates,
                "last_ms": insertion.excluded.last_ms,
            },
        )
        self._count = PreparedStatement(engine, counted)
        mine = (frames.c.camera == bindparam("of"), frames.c.boot == bindparam("in_boot"))
        span = (frames.c.seq >= bindparam("since"), frames.c.seq <= bindparam("until"))
        self._held = PreparedStatement(engine, select(func.count()).select_from(frames).where(*mine, *span))

    def make_room(self, at_ms: int) -> None:
        """Do nothing: SQLite needs no partition."""

    def forget(self) -> None:
        """Do nothing: only the archive has a memory, which its owner clears."""

    def record(
        self, connection: Connection, rows: Mapping[FrameKey, FrameRow], repeated: Counter[BootKey], at_ms: int
    ) -> list[FrameRow]:
        """Implement `Frames.record`."""
        counted: Counter[BootKey] = Counter([key[:2] for key in rows])
        seen = counted + repeated if repeated else counted
        if not self._alone:
            self._archive.forget()
        archived = self._archive.frames(connection, rows)
        left = list(rows.values())
        if archived:
            left = [row for row in left if row.seq not in archived.get((row.camera, row.boot), ())]
        keys = self._new.insert(connection, left)
        if len(keys) == len(rows):
            new, fresh = left, counted
        else:
            new = [rows[camera, boot, seq] for camera, boot, seq in keys]
            fresh = Counter([row[:2] for row in new])
        counts = [(*boot, fresh[boot], count - fresh[boot], at_ms) for boot, count in seen.items()]
        self._count.run_all(connection, ("camera", "boot", "frames", "duplicates", "last_ms"), counts)
        return new

    def count(self, connection: Connection, new: Sequence[FrameRow]) -> None:
        """Implement `Frames.count`."""
        self._tallies.add(connection, {FRAME_ROWS: len(new), FRAME_BYTES: bytes_of(new, "sqlite")})

    def complete(self, connection: Connection, stretches: Mapping[BootKey, tuple[int, int]]) -> set[BootKey]:
        """Implement `Frames.complete`, without purged frames."""
        found = set()
        for boot, (first, last) in stretches.items():
            row = self._held.run(connection, of=boot[0], in_boot=boot[1], since=first, until=last).fetchone()
            if row is not None and row[0] == last + 1 - first:
                found.add(boot)
        return found

    def drop(self, connection: Connection, excess: Excess) -> int:
        """Return 0: SQLite has no partitions to drop."""
        return 0

    def purge(self, connection: Connection, excess: Excess, at_most: int) -> int:
        """Implement `Frames.purge`."""
        key = (frames.c.camera, frames.c.boot, frames.c.seq)
        oldest = select(*key).order_by(frames.c.recorded_ms)
        if not excess.too_many:
            oldest = oldest.where(frames.c.recorded_ms < excess.before_ms)
        oldest = oldest.limit(min(at_most, excess.rows) if excess.rows > 0 else at_most)
        texts = tuple(
            frames.c[name] for name in ("class_name", "model_id", "policy", "class_group", "best", "windows")
        )  # fmt: skip
        purged = delete(frames).where(tuple_(*key).in_(oldest)).returning(*key, *texts)
        gone: Sequence[Any] = connection.execute(purged).all()
        if gone:
            self._archive.add(connection, RowKind.FRAME, ((row.camera, row.boot, row.seq) for row in gone))
            freed = bytes_of(gone, "sqlite")  # these rows have the columns that it reads
            self._tallies.add(connection, {FRAME_ROWS: -len(gone), FRAME_BYTES: -freed, PURGED_FRAMES: len(gone)})
        return len(gone)
