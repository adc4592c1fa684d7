"""Frames of cameras that are attached to a running system: published by processes that `up` does not start."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import and_, select

from consumers.database.engine import open_engine
from consumers.database.tables import boots, ledgers
from schemas.errors import StateError


def attached_frames(database_url: str, since_ms: int, fleet: Collection[str]) -> int:
    """Return the frames of cameras outside `fleet`, published since their boots of `since_ms` (Unix time) or later.

    The number of a boot comes from its ledger, or from its recorded frames if these are more. 0 without a
    database. Raises SQLAlchemyError when the database cannot be read.
    """
    same_boot = and_(boots.c.camera == ledgers.c.camera, boots.c.boot == ledgers.c.boot)
    query = (
        select(ledgers.c.camera, ledgers.c.next - ledgers.c.first, boots.c.frames)
        .join_from(ledgers, boots, same_boot, isouter=True)
        .where(ledgers.c.started_ms >= since_ms)
    )
    try:
        engine = open_engine(database_url, writes=False)
    except StateError:
        return 0
    try:
        with engine.begin() as connection:
            rows = connection.execute(query).all()
    finally:
        engine.dispose()
    return sum(max(published, recorded or 0) for camera, published, recorded in rows if camera not in fleet)
