"""The cameras' ledgers in the database: a bounded number for each camera, and sums over its older ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, Engine, bindparam, delete, func, insert, select, update

from consumers.conservation.balance import BootAudit
from consumers.conservation.ledgers import SignedLedger
from consumers.database.archive import RowKind
from consumers.database.engine import upsert
from consumers.database.runs import boot_numbers
from consumers.database.tables import archived, ledgers, summed_ledgers
from consumers.records.rows import LedgerRow, SummedRow
from schemas.identity import CameraId
from schemas.pointillist_pb2 import Ledger

UNSETTLED_TIMES: Final = 4
"""Factor on a camera's limit of ledgers while its ledgers are not settled."""
LEDGERS_AT_ONCE: Final = 50
"""Ledgers of one camera in one step: each needs several queries for the fates of its frames."""
_MOST: Final = 2**62
"""Upper bound of each sum: any claim of a camera then fits the column."""


class LedgerTable:
    """The tables `ledgers` and `summed_ledgers`. For the database thread only."""

    def __init__(self, engine: Engine) -> None:
        row = {column.name: bindparam(column.name, type_=column.type) for column in ledgers.columns}
        summed = select(archived.c.boot).where(
            archived.c.kind == RowKind.LEDGER.value,
            archived.c.camera == row["camera"],
            archived.c.boot == row["boot"],
        )
        insertion = upsert(engine, ledgers).from_select(list(row), select(*row.values()).where(~summed.exists()))
        self._put = insertion.on_conflict_do_update(
            index_elements=[ledgers.c.camera, ledgers.c.boot],
            set_={column.name: insertion.excluded[column.name] for column in ledgers.columns if not column.primary_key},
            where=insertion.excluded.revision > ledgers.c.revision,
        )
        # Another recorder may have stored a ledger while this one summed it.
        self._archive = upsert(engine, archived).on_conflict_do_nothing()

    def record(self, connection: Connection, rows: Collection[LedgerRow]) -> None:
        """Store each ledger unless the database holds a later revision, or has summed it: a replay counts once."""
        connection.execute(self._put, [row._asdict() for row in rows])

    def purge(self, connection: Connection, keep: int) -> int:
        """Sum and remove the oldest ledgers of cameras that have more than `keep`. Return the number removed.

        A ledger is settled if its boot is closed and each of its frames has a fate. An unsettled ledger stays until its
        camera has `UNSETTLED_TIMES` times `keep` ledgers: a later revision of one that was removed counts twice.
        """
        counts = select(ledgers.c.camera, func.count()).group_by(ledgers.c.camera).having(func.count() > keep)
        crowded = connection.execute(counts.order_by(ledgers.c.camera)).all()
        return sum(self._sum_up(connection, camera, count, keep) for camera, count in crowded)

    def _sum_up(self, connection: Connection, camera: str, count: int, keep: int) -> int:
        oldest = select(ledgers).where(ledgers.c.camera == camera).order_by(ledgers.c.taken_ms, ledgers.c.boot)
        rows = connection.execute(oldest.limit(min(count - keep, LEDGERS_AT_ONCE)))
        removed: list[tuple[LedgerRow, BootAudit]] = []
        over = count - UNSETTLED_TIMES * keep
        for row in [LedgerRow(*row) for row in rows]:
            boot = _audited(connection, row)
            if len(removed) < over or _is_settled(row, boot):
                removed.append((row, boot))
        if removed:
            _remove(connection, camera, removed)
        if settled := [row.boot for row, boot in removed if _is_settled(row, boot)]:
            mine = {"kind": RowKind.LEDGER.value, "camera": camera, "first": 0, "last": 0}
            connection.execute(self._archive, [mine | {"boot": boot} for boot in settled])
        return len(removed)


def _is_settled(row: LedgerRow, boot: BootAudit) -> bool:
    """Return whether a boot is closed and each of its frames has a fate."""
    return row.closed and not (boot.pending or boot.lost)


def _remove(connection: Connection, camera: str, removed: Sequence[tuple[LedgerRow, BootAudit]]) -> None:
    """Add these ledgers to the camera's sums and delete them."""
    _add(connection, _sum(camera, removed))
    gone = [row.boot for row, _ in removed]
    connection.execute(delete(ledgers).where(ledgers.c.camera == camera, ledgers.c.boot.in_(gone)))


def _audited(connection: Connection, row: LedgerRow) -> BootAudit:
    """Return the fates of the frames that one ledger claims."""
    boot = BootAudit(CameraId(row.camera), row.boot)
    with suppress(DecodeError):  # not a camera's ledger: it counts no frames
        boot.take_ledger(SignedLedger.of(Ledger.FromString(row.message)), None, spooled=False)
    boot.recorded = boot_numbers(connection, RowKind.FRAME, row.camera, row.boot)
    boot.dead_lettered = boot_numbers(connection, RowKind.DEAD_LETTER, row.camera, row.boot)
    boot.settle(row.confirmed_to)
    return boot


def _sum(camera: str, removed: Sequence[tuple[LedgerRow, BootAudit]]) -> SummedRow:
    """Return the sums of the ledgers' counts, without those that other tables hold."""
    return SummedRow(
        camera,
        ledgers=len(removed),
        shed=sum(len(boot.shed) for _, boot in removed),
        pending=sum(len(boot.pending) for _, boot in removed),
        lost=sum(len(boot.lost) for _, boot in removed),
        frames_skipped=min(sum(row.frames_skipped for row, _ in removed), _MOST),
        frames_resent=min(sum(row.frames_resent for row, _ in removed), _MOST),
        bytes_resent=min(sum(row.bytes_resent for row, _ in removed), _MOST),
        started_ms=min(row.started_ms for row, _ in removed),
    )


def _add(connection: Connection, more: SummedRow) -> None:
    mine = summed_ledgers.c.camera == more.camera
    row = connection.execute(select(summed_ledgers).where(mine)).one_or_none()
    if row is None:
        connection.execute(insert(summed_ledgers).values(more._asdict()))
        return
    before = SummedRow(*row)
    sums = [min(a + b, _MOST) for a, b in zip(before[1:-1], more[1:-1], strict=True)]
    after = SummedRow._make([more.camera, *sums, min(before.started_ms, more.started_ms)])
    connection.execute(update(summed_ledgers).where(mine).values(after._asdict()))
