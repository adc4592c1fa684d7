"""The frames in PostgreSQL: partitions by recording time. The oldest partition is dropped as a whole.

Ranges of identities decide whether a frame is new in any partition. Within a partition, the primary key enforces unique
identities as well. Recorders write to the partition directly, so readers or drops of other partitions do not block
them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, Engine, delete, text, update
from sqlalchemy.exc import OperationalError

from consumers.database.arrays import UnnestStatement
from consumers.database.frames import Excess
from consumers.database.identities import Identities
from consumers.database.spans import Span, ensure_span, partition, spans_held
from consumers.database.tables import boots, frames, spans
from consumers.database.tallies import FRAME_BYTES, FRAME_ROWS, PURGED_FRAMES, Tallies
from consumers.records.batch import BootKey, FrameKey
from consumers.records.rows import POSTGRESQL_ROW_BYTES, FrameRow, bytes_of
from schemas.clock import unix_ms

_DROP_WAIT: Final = text("SET LOCAL lock_timeout = '100ms'")
"""Maximum time for which a drop waits for readers of all partitions, and other transactions wait behind it."""
_WAIT_AGAIN: Final = text("SET LOCAL lock_timeout TO DEFAULT")
_COUNT: Final = """
INSERT INTO boots (camera, boot, frames, duplicates, last_ms) SELECT * FROM {rows}
ON CONFLICT (camera, boot) DO UPDATE SET frames = boots.frames + excluded.frames,
  duplicates = boots.duplicates + excluded.duplicates, last_ms = excluded.last_ms"""
_COLUMNS: Final = ", ".join(f'"{column.name}"' for column in frames.columns)
_PURGE: Final = f"""
WITH gone AS (
  DELETE FROM {{name}} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {{name}} {{where}} ORDER BY recorded_ms LIMIT :rows))
  RETURNING {POSTGRESQL_ROW_BYTES} + 2 * octet_length(camera) + octet_length(class_name)
    + octet_length(model_id) + octet_length(policy) + octet_length(class_group) + octet_length(best)
    + octet_length(windows) AS bytes
) SELECT count(*), coalesce(sum(bytes), 0) FROM gone"""


def _in_order(connection: Connection) -> list[Span]:
    """Return all spans in the order of their purge, oldest first.

    That of the present is the last: frames of later ones were recorded before, while the clock was ahead.
    """
    now_ms = unix_ms()
    return sorted(spans_held(connection), key=lambda span: span.from_ms <= now_ms < span.to_ms)


class FramesByTime:
    """Writes the table `frames` of a PostgreSQL database, which several recorders share."""

    def __init__(self, engine: Engine, tallies: Tallies) -> None:
        self._engine = engine
        self._tallies = tallies
        self._identities = Identities()
        self._count = UnnestStatement(_COUNT, list(boots.columns))
        self._span: Span | None = None
        self._insert: UnnestStatement | None = None

    def make_room(self, at_ms: int) -> None:
        """Implement `Frames.make_room`: create the partition for that time."""
        if self._span is not None and self._span.from_ms <= at_ms < self._span.to_ms:
            return
        # In its own transaction: locks of a longer one would block others.
        with self._engine.begin() as connection:
            span = ensure_span(connection, at_ms)
        insertion = f"INSERT INTO {partition(span.from_ms)} ({_COLUMNS}) SELECT * FROM {{rows}}"
        self._span, self._insert = span, UnnestStatement(insertion, list(frames.columns))

    def forget(self) -> None:
        """Implement `Frames.forget`: another recorder may have dropped the partition."""
        self._span = self._insert = None

    def record(
        self, connection: Connection, rows: Mapping[FrameKey, FrameRow], repeated: Counter[BootKey], at_ms: int
    ) -> list[FrameRow]:
        """Implement `Frames.record`."""
        numbers: defaultdict[BootKey, list[int]] = defaultdict(list)
        for camera, boot, seq in rows:
            numbers[camera, boot].append(seq)
        # First lock the boots' rows: until the end, no other transaction changes their identities. All recorders
        # lock in the same order, so no deadlock can occur.
        boots_here = sorted(numbers)
        self._count.run(connection, [(*boot, len(numbers[boot]), repeated[boot], at_ms) for boot in boots_here])
        known = self._identities.add(connection, numbers)
        new = list(rows.values())
        if known:
            again = [(*boot, -len(known[boot]), len(known[boot]), at_ms) for boot in sorted(known)]
            self._count.run(connection, again)
            new = [row for row in new if row.seq not in known.get((row.camera, row.boot), ())]
        if new:
            assert self._insert is not None, "expected make_room before"
            self._insert.run(connection, new)
        return new

    def count(self, connection: Connection, new: Sequence[FrameRow]) -> None:
        """Implement `Frames.count`."""
        assert self._span is not None, "expected make_room before"
        size = bytes_of(new, "postgresql")
        here = spans.c.from_ms == self._span.from_ms
        more = {"frames": spans.c.frames + len(new), "bytes": spans.c.bytes + size}
        connection.execute(update(spans).where(here).values(more))
        self._tallies.add(connection, {FRAME_ROWS: len(new), FRAME_BYTES: size})

    def complete(self, connection: Connection, stretches: Mapping[BootKey, tuple[int, int]]) -> set[BootKey]:
        """Implement `Frames.complete`, purged frames included."""
        ends = self._identities.range_ends(connection, {boot: first for boot, (first, _) in stretches.items()})
        return {boot for boot, (_, last) in stretches.items() if ends.get(boot, -1) >= last}

    def drop(self, connection: Connection, excess: Excess) -> int:
        """Implement `Frames.drop`: the first partition in the order of the purge, if it is expired and not the last."""
        held = _in_order(connection)
        if len(held) < 2 or not (held[0].to_ms <= excess.before_ms or excess.too_many):
            return 0
        oldest = held[0]
        connection.execute(_DROP_WAIT)
        try:
            with connection.begin_nested():
                connection.execute(text(f"DROP TABLE IF EXISTS {partition(oldest.from_ms)}"))
        except OperationalError:  # a reader blocks it: the next step tries again
            return 0
        connection.execute(_WAIT_AGAIN)
        connection.execute(delete(spans).where(spans.c.from_ms == oldest.from_ms))
        self._gone(connection, oldest.frames, oldest.bytes)
        return oldest.frames

    def purge(self, connection: Connection, excess: Excess, at_most: int) -> int:
        """Implement `Frames.purge` for the last partition, if there is no other."""
        held = spans_held(connection)
        if len(held) != 1:
            return 0
        (span,) = held
        where = "" if excess.too_many else "WHERE recorded_ms < :before"
        values = {"rows": min(at_most, excess.rows) if excess.rows > 0 else at_most, "before": excess.before_ms}
        if excess.too_many:
            del values["before"]
        elif span.from_ms >= excess.before_ms:
            return 0
        statement = text(_PURGE.format(name=partition(span.from_ms), where=where))
        count, size = connection.execute(statement, values).one()
        if count:
            less = {"frames": spans.c.frames - count, "bytes": spans.c.bytes - int(size)}
            connection.execute(update(spans).where(spans.c.from_ms == span.from_ms).values(less))
            self._gone(connection, count, int(size))
        return int(count)

    def _gone(self, connection: Connection, count: int, size: int) -> None:
        self._tallies.add(connection, {FRAME_ROWS: -count, FRAME_BYTES: -size, PURGED_FRAMES: count})
