"""A PostgreSQL of version 6, which kept all frames in one table, as one of version 7, which cuts them by time.

The table becomes the oldest partition, as it is, and what was recorded in it becomes ranges: one walk over its key and
one over its rows. All recorders of the earlier release have to be stopped; one that still runs is told so.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, text

from consumers.database.archive import Kind
from consumers.database.runs import runs
from consumers.database.spans import Span, attach, partition
from consumers.database.tables import archived, frames, spans
from consumers.database.tallies import FRAME_BYTES, FRAME_ROWS, tally
from schemas.ranges import RangeSet

_AT_ONCE: Final = 10_000
# By a statement's trigger, which rows that go into a partition itself do not meet; as an error that is waited out, so
# that what the recorder has in hand is not refused as a record that no database takes.
_WARNING: Final = """
CREATE OR REPLACE FUNCTION pointillist_frames_are_cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE EXCEPTION 'the database is of version 7: stop the recorders of version 6' USING ERRCODE = '55000';
END $$"""
_WARN: Final = """
CREATE TRIGGER frames_are_cut BEFORE INSERT ON frames
FOR EACH STATEMENT EXECUTE FUNCTION pointillist_frames_are_cut()"""


def cut_by_time(connection: Connection) -> None:
    """Change the database of version 6, in one transaction: some ten seconds for a million frames."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text(f"LOCK TABLE {frames.name} IN ACCESS EXCLUSIVE MODE"))
    _keep_identities(connection)
    first, last = connection.execute(select(func.min(frames.c.recorded_ms), func.max(frames.c.recorded_ms))).one()
    if first is None:
        connection.execute(text(f"DROP TABLE {frames.name}"))
    else:
        whole = Span(first, last + 1, tally(connection, FRAME_ROWS), tally(connection, FRAME_BYTES))
        name = partition(first)
        connection.execute(text(f"ALTER TABLE {frames.name} RENAME TO {name}"))
        connection.execute(text(f"ALTER INDEX frames_by_age RENAME TO {name}_recorded_ms_idx"))
    frames.create(connection)
    if first is not None:
        attach(connection, name, whole)
        connection.execute(insert(spans).values(whole._asdict()))
    connection.execute(text(_WARNING))
    connection.execute(text(_WARN))


def _keep_identities(connection: Connection) -> None:
    """Ranges of all that is recorded, in the place of those of what was purged."""
    found: defaultdict[tuple[str, int], RangeSet] = defaultdict(RangeSet)
    for camera, boot, first, last in runs(connection, frames, ()):
        found[camera, boot].add(first, last)
    of_frames = archived.c.kind == Kind.FRAME.value
    purged = select(archived.c.camera, archived.c.boot, archived.c.first, archived.c.last).where(of_frames)
    for camera, boot, first, last in connection.execute(purged):
        found[camera, boot].add(first, last)
    connection.execute(delete(archived).where(of_frames))
    rows = [
        {"kind": Kind.FRAME.value, "camera": camera, "boot": boot, "first": first, "last": last}
        for (camera, boot), ranges in found.items()
        for first, last in ranges.ranges()
    ]
    for start in range(0, len(rows), _AT_ONCE):
        connection.execute(insert(archived), rows[start : start + _AT_ONCE])
