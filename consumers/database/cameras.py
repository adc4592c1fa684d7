"""The last status and meta message of each camera, in the database.

Each camera signs both. A message older than the stored one is ignored, and so is a message of an ended boot after that
of a running one. Therefore retained or replayed messages change nothing while a camera runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError
from sqlalchemy import ColumnElement, Connection, Engine, case, delete, func, select

from consumers.database.archive import RowKind
from consumers.database.engine import insert_or_replace
from consumers.database.tables import archived, boots, cameras, ledgers
from consumers.records.batch import Batch, clean
from consumers.records.rows import CameraRow
from schemas.batched import batched
from schemas.messages.camera_status import is_newer
from schemas.pointillist_pb2 import Meta, Status

M = TypeVar("M", Meta, Status)

_AHEAD_MS: Final = 60_000
"""Milliseconds by which another machine's clock may be ahead."""


def last_recorded(now_ms: int) -> ColumnElement[int | None]:
    """Return the aggregate over the table `boots` that is the time of the last recording, NULL without one.

    A boot whose last frame was recorded while the clock was ahead does not count: nothing corrects its time.
    """
    return func.max(case((boots.c.last_ms <= now_ms + _AHEAD_MS, boots.c.last_ms)))


def boot_totals(connection: Connection, names: Sequence[str], total: ColumnElement[Any]) -> dict[str, int]:
    """Return `total`, an aggregate over the table `boots`, for each of these cameras for which it is not NULL."""
    found: dict[str, int] = {}
    for some in batched(names):
        query = select(boots.c.camera, total).where(boots.c.camera.in_(some)).group_by(boots.c.camera)
        found |= {name: int(value) for name, value in connection.execute(query) if value is not None}
    return found


def _stored(kind: type[M], message: bytes) -> M | None:
    """Return a stored message; None without one, and for a damaged one, which the camera's next message replaces."""
    with suppress(DecodeError):
        return kind.FromString(message) if message else None
    return None


def _replaces(connection: Connection, camera: str, message: M, stored: M | None, seen_ms: int) -> bool:
    """Return whether a message replaces the stored one, which was received at `seen_ms`."""
    if stored is None:
        return True
    if not is_newer(message, stored, seen_ms):
        return False
    # By its own clock, which may have been ahead, a replayed message is newer than those of the running boot.
    return (
        message.boot_id == stored.boot_id
        or not _has_ended(connection, camera, message.boot_id)
        or _has_ended(connection, camera, stored.boot_id)
    )


def _has_ended(connection: Connection, camera: str, boot: int) -> bool:
    """Return whether the last ledger of a boot is recorded."""
    closed = select(ledgers.c.boot).where(ledgers.c.camera == camera, ledgers.c.boot == boot, ledgers.c.closed)
    summed = select(archived.c.boot).where(
        archived.c.kind == RowKind.LEDGER.value, archived.c.camera == camera, archived.c.boot == boot
    )
    return connection.execute(closed.union_all(summed)).first() is not None


class CameraRows:
    """Writes the table `cameras`. For the database thread only."""

    def __init__(self, engine: Engine) -> None:
        self._put = insert_or_replace(engine, cameras)
        self._met_new = True
        """Whether cameras may have been added since `purge_strangers` found no excess; False saves an index scan."""

    def update(self, connection: Connection, batch: Batch) -> list[CameraRow]:
        """Apply the batch's status and meta messages in order. Return the changed rows.

        Call `update` before the batch's ledgers are recorded: they may end a boot that these messages announce.
        """
        names = {camera for camera, _ in batch.statuses} | {camera for camera, _ in batch.metas}
        found = connection.execute(select(cameras).where(cameras.c.camera.in_(names)))
        known = {row.camera: CameraRow(*row) for row in found}
        changed: dict[str, CameraRow] = {}
        for name, meta in batch.metas:
            row = changed.get(name) or known.get(name) or CameraRow(name)
            stored_meta = _stored(Meta, row.meta)
            if _replaces(connection, name, meta, stored_meta, row.seen_ms):
                changed[name] = row._replace(meta=meta.SerializeToString(), seen_ms=batch.recorded_ms)
        for name, status in batch.statuses:
            row = changed.get(name) or known.get(name) or CameraRow(name)
            stored_status = _stored(Status, row.status)
            if _replaces(connection, name, status, stored_status, row.seen_ms):
                changed[name] = row._replace(
                    state=status.state,
                    state_ms=batch.recorded_ms,
                    detail=clean(status.detail),
                    status=status.SerializeToString(),
                    seen_ms=batch.recorded_ms,
                )
        self._met_new |= not changed.keys() <= known.keys()
        if changed:
            connection.execute(self._put, [row._asdict() for row in changed.values()])
        return list(changed.values())

    def purge_strangers(self, connection: Connection, limit: int, rows: int) -> int:
        """Remove at most `rows` of the cameras beyond `limit` that never sent a frame, the longest silent first."""
        if not self._met_new:
            return 0
        strange = ~select(boots.c.camera).where(boots.c.camera == cameras.c.camera).exists()
        found = connection.execute(
            select(cameras.c.camera).where(strange).order_by(cameras.c.seen_ms.desc()).offset(limit).limit(rows)
        )
        names = [name for (name,) in found]
        if names:
            connection.execute(delete(cameras).where(cameras.c.camera.in_(names)))
        self._met_new = len(names) == rows
        return len(names)
