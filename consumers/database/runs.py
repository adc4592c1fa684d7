"""The identities of all boots as ranges, in one walk over an index: the database gives the ends of runs alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, Engine, Table, func, or_, select

from consumers.database.archive import Kind, keeps_all
from consumers.database.tables import archived
from schemas.ranges import RangeSet


def all_numbers(
    engine: Engine, table: Table, kind: Kind, *where: ColumnElement[bool], of: Collection[str] | None = None
) -> dict[tuple[str, int], RangeSet]:
    """The sequence numbers of each boot in `table` where that holds, with those of its `kind` that were purged.

    `of` chooses cameras; None takes all.
    """
    found: defaultdict[tuple[str, int], RangeSet] = defaultdict(RangeSet)
    purged = select(archived.c.camera, archived.c.boot, archived.c.first, archived.c.last)
    if of is not None:
        purged, where = purged.where(archived.c.camera.in_(of)), (*where, table.c.camera.in_(of))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # It walks over all that there is, which may be more than a page would wait for.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        for camera, boot, first, last in () if keeps_all(connection, kind) else runs(connection, table, where):
            found[camera, boot].add(first, last)
        for camera, boot, first, last in connection.execute(purged.where(archived.c.kind == kind.value)):
            found[camera, boot].add(first, last)
    return dict(found)


def runs(
    connection: Connection, table: Table, where: Sequence[ColumnElement[bool]]
) -> Iterator[tuple[str, int, int, int]]:
    """The runs of successive sequence numbers of each boot: camera, boot, first, last; ascending within a boot.

    The database gives the ends of runs alone: the rows whose neighbour in their boot is not the next number.
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
    # Dead letters may name a number twice, one after the other: a run goes on there.
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
