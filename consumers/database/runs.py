"""The identities of boots as ranges, purged ones included: the database returns only the ends of runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator

from sqlalchemy import ColumnElement, Connection, Engine, func, or_, select

from consumers.database.archive import RowKind, keeps_all, load
from consumers.database.tables import archived, dead_letters, frames
from schemas.ranges import RangeSet

_TABLES = {RowKind.FRAME: frames, RowKind.DEAD_LETTER: dead_letters}


def boot_numbers(connection: Connection, kind: RowKind, camera: str, boot: int) -> RangeSet:
    """Return the recorded frames of one boot, or its frames with a verified dead letter."""
    found = load(connection, kind, camera, boot)
    if keeps_all(connection, kind):
        return found
    table = _TABLES[kind]
    # All numbers of a run have the same distance from their rank. For one boot, this takes a third of the time of
    # `_runs`; for all boots, the database would have to sort every row.
    distance = (table.c.seq - func.dense_rank().over(order_by=table.c.seq)).label("distance")
    mine = (table.c.camera == camera, table.c.boot == boot, *_verified(kind))
    rows = select(table.c.seq, distance).where(*mine).subquery()
    ends = select(func.min(rows.c.seq), func.max(rows.c.seq)).group_by(rows.c.distance)
    for first, last in connection.execute(ends):
        found.add(first, last)
    return found


def all_numbers(engine: Engine, kind: RowKind, of: Collection[str] | None = None) -> dict[tuple[str, int], RangeSet]:
    """Return `boot_numbers` of each boot that has any, in one index scan. `of` selects cameras; None selects all."""
    found: defaultdict[tuple[str, int], RangeSet] = defaultdict(RangeSet)
    purged = select(archived.c.camera, archived.c.boot, archived.c.first, archived.c.last)
    purged = purged.where(archived.c.kind == kind.value, *_among(archived.c.camera, of))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # The scan covers all rows and may take longer than a page's timeout.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        for camera, boot, first, last in _runs(connection, kind, *_among(_TABLES[kind].c.camera, of)):
            found[camera, boot].add(first, last)
        for camera, boot, first, last in connection.execute(purged):
            found[camera, boot].add(first, last)
    return dict(found)


def _among(camera: ColumnElement[str], of: Collection[str] | None) -> Iterator[ColumnElement[bool]]:
    if of is not None:
        yield camera.in_(of)


def _verified(kind: RowKind) -> Iterator[ColumnElement[bool]]:
    if kind is RowKind.DEAD_LETTER:
        yield dead_letters.c.verified


def _runs(connection: Connection, kind: RowKind, *where: ColumnElement[bool]) -> Iterator[tuple[str, int, int, int]]:
    """Yield the runs of consecutive sequence numbers: camera, boot, first, last, ascending within a boot.

    The database returns only the ends of runs: rows whose neighbour in their boot is not the next number. None is
    yielded if the archived ranges have all numbers.
    """
    if keeps_all(connection, kind):
        return
    table = _TABLES[kind]
    boot = (table.c.camera, table.c.boot)
    rows = (
        select(*boot, table.c.seq)
        .add_columns(
            func.lag(table.c.seq).over(partition_by=boot, order_by=table.c.seq).label("before"),
            func.lead(table.c.seq).over(partition_by=boot, order_by=table.c.seq).label("after"),
        )
        .where(*where, *_verified(kind))
        .subquery()
    )
    # Dead letters may repeat a number in succession: the run continues there.
    starts = or_(rows.c.before.is_(None), rows.c.before < rows.c.seq - 1)
    ends = or_(rows.c.after.is_(None), rows.c.after > rows.c.seq + 1)
    ordered = select(rows.c.camera, rows.c.boot, rows.c.seq, starts, ends).where(or_(starts, ends))
    first = 0
    for camera, boot_id, seq, begins, ended in connection.execute(
        ordered.order_by(rows.c.camera, rows.c.boot, rows.c.seq)
    ):
        first = seq if begins else first
        if ended:
            yield camera, boot_id, first, seq
