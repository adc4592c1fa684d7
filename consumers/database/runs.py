"""The identities of all boots as ranges, in one index scan: the database returns only the ends of runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, Engine, Table, func, or_, select

from consumers.database.archive import RowKind, keeps_all
from consumers.database.tables import archived
from schemas.ranges import RangeSet


def all_numbers(
    engine: Engine, table: Table, kind: RowKind, *where: ColumnElement[bool], of: Collection[str] | None = None
) -> dict[tuple[str, int], RangeSet]:
    """Return the sequence numbers of each boot in `table` that match, with the purged ones of its `kind`.

    `of` selects cameras; None selects all.
    """
    found: defaultdict[tuple[str, int], RangeSet] = defaultdict(RangeSet)
    purged = select(archived.c.camera, archived.c.boot, archived.c.first, archived.c.last)
    if of is not None:
        purged, where = purged.where(archived.c.camera.in_(of)), (*where, table.c.camera.in_(of))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # The scan covers all rows and may take longer than a page's timeout.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        for camera, boot, first, last in () if keeps_all(connection, kind) else runs(connection, table, where):
            found[camera, boot].add(first, last)
        for camera, boot, first, last in connection.execute(purged.where(archived.c.kind == kind.value)):
            found[camera, boot].add(first, last)
    return dict(found)


def runs(
    connection: Connection, table: Table, where: Sequence[ColumnElement[bool]]
) -> Iterator[tuple[str, int, int, int]]:
    """Yield the runs of consecutive sequence numbers: camera, boot, first, last, ascending within a boot.

    The database returns only the ends of runs: rows whose neighbour in their boot is not the next number.
    """
    boot = (table.c.camera, table.c.boot)
    rows = (
        select(*boot, table.c.seq)
        .add_columns(
            func.lag(table.c.seq).over(partition_by=boot, order_by=table.c.seq).label("before"),
            func.lead(table.c.seq).over(partition_by=boot, order_by=table.c.seq).label("after"),
        )
        .where(*where)
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
