"""The last status and meta message of each camera, in the database.

Neither is signed: they are shown, and decide nothing.
"""

from __future__ import annotations

from sqlalchemy import Connection, Engine, delete, select

from consumers.database import upsert
from consumers.intake import Batch, clean
from consumers.rows import CameraRow
from consumers.tables import boots, cameras
from schemas.frame import TIME_LIMIT
from schemas.identity import BOOT_ID_LIMIT
from schemas.pointillist_pb2 import OFFLINE, Status


class CameraRows:
    """Writes the table `cameras`. For the database thread only."""

    def __init__(self, engine: Engine) -> None:
        insertion = upsert(engine, cameras)
        self._upsert = insertion.on_conflict_do_update(
            index_elements=[cameras.c.camera], set_={name: insertion.excluded[name] for name in CameraRow._fields[1:]}
        )

    def update(self, connection: Connection, batch: Batch) -> list[CameraRow]:
        """Apply the batch's status and meta messages in their order; the changed rows."""
        names = {camera for camera, _ in batch.statuses} | set(batch.metas)
        found = connection.execute(select(cameras).where(cameras.c.camera.in_(names)))
        known = {row.camera: CameraRow(*row) for row in found}
        changed: dict[str, CameraRow] = {}
        for name in names:
            row = known.get(name, CameraRow(name))._replace(seen_ms=batch.recorded_ms)
            changed[name] = row._replace(meta=batch.metas.get(name, row.meta))
        for name, status in batch.statuses:
            if not _is_stale(status, changed[name]):
                changed[name] = changed[name]._replace(
                    state=status.state,
                    state_ms=min(status.at_ms, TIME_LIMIT),
                    state_boot=status.boot_id if status.boot_id < BOOT_ID_LIMIT else 0,
                    detail=clean(status.detail),
                )
        connection.execute(self._upsert, [row._asdict() for row in changed.values()])
        return list(changed.values())

    def purge_strangers(self, connection: Connection, limit: int, rows: int) -> int:
        """Forget at most `rows` of the cameras beyond `limit` that never sent a frame, the longest unheard first."""
        strange = ~select(boots.c.camera).where(boots.c.camera == cameras.c.camera).exists()
        found = connection.execute(
            select(cameras.c.camera).where(strange).order_by(cameras.c.seen_ms.desc()).offset(limit).limit(rows)
        )
        names = [name for (name,) in found]
        if names:
            connection.execute(delete(cameras).where(cameras.c.camera.in_(names)))
        return len(names)


def _is_stale(status: Status, row: CameraRow) -> bool:
    """Whether it is the last will of an earlier boot, which the broker may send after the next boot is online."""
    return status.state == OFFLINE and status.boot_id != row.state_boot and status.at_ms <= row.state_ms
