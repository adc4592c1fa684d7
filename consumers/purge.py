"""Keeping the stores within their bounds, the oldest first, in steps that never hold up recording for long."""

from __future__ import annotations

import time

from sqlalchemy import Connection, delete, func, select, tuple_

from consumers.archive import Kind
from consumers.intake import FrameKey
from consumers.settings import Bounds
from consumers.store import Store
from consumers.tables import alerts, dead_letters, evidence, frames
from consumers.tallies import (
    DEAD_LETTER_BYTES,
    FRAME_ROWS,
    FRAMES_KEPT_FROM_MS,
    PURGED_ALERTS,
    PURGED_FOREIGN,
    PURGED_VERIFIED,
    tally,
)

POSTGRESQL_ROW_BYTES = 512
"""What one frame is taken to cost in PostgreSQL, whose files do not shrink when rows go."""


def purge(store: Store, bounds: Bounds) -> bool:
    """One step for each store, each at most `bounds.purge_rows`; whether there is more to purge now."""
    now_ms = time.time_ns() // 10**6
    with store.engine.begin() as connection:
        taken = (
            _purge_frames(store, connection, bounds, now_ms),
            _purge_dead_letters(store, connection, bounds, now_ms),
            _purge_evidence(connection, bounds, now_ms),
            _purge_alerts(store, connection, bounds),
            store.camera_rows.purge_strangers(connection, bounds.strangers, bounds.purge_rows),
            store.quarantine.purge(
                connection, bounds.quarantine_bytes, _before(now_ms, bounds.quarantine_age_s), bounds.purge_rows
            ),
        )
    return max(taken) >= bounds.purge_rows


def _before(now_ms: int, age_s: float) -> int:
    return now_ms - round(age_s * 1000)


def _purge_frames(store: Store, connection: Connection, bounds: Bounds, now_ms: int) -> int:
    rows = tally(connection, FRAME_ROWS)
    too_many = rows > bounds.database_rows or _database_bytes(connection, rows) > bounds.database_bytes
    key = (frames.c.camera, frames.c.boot, frames.c.seq)
    oldest = select(*key).order_by(frames.c.recorded_ms).limit(bounds.purge_rows)
    if not too_many:
        oldest = oldest.where(frames.c.recorded_ms < _before(now_ms, bounds.database_age_s))
    elif rows - bounds.database_rows > 0:
        oldest = oldest.limit(min(bounds.purge_rows, rows - bounds.database_rows))
    gone: list[tuple[FrameKey, int]] = [
        ((camera, boot, seq), recorded_ms)
        for camera, boot, seq, recorded_ms in connection.execute(
            delete(frames).where(tuple_(*key).in_(oldest)).returning(*key, frames.c.recorded_ms)
        )
    ]
    if gone:
        store.archive.add(connection, Kind.FRAME, (identity for identity, _ in gone))
        store.tallies.add(connection, {FRAME_ROWS: -len(gone)})
        store.tallies.set(connection, FRAMES_KEPT_FROM_MS, max(recorded_ms for _, recorded_ms in gone))
    return len(gone)


def _database_bytes(connection: Connection, rows: int) -> int:
    if connection.dialect.name != "sqlite":
        return rows * POSTGRESQL_ROW_BYTES
    pages, free, size = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _purge_dead_letters(store: Store, connection: Connection, bounds: Bounds, now_ms: int) -> int:
    place = (dead_letters.c.topic, dead_letters.c.partition, dead_letters.c.offset)
    columns = (dead_letters.c.verified, dead_letters.c.camera, dead_letters.c.boot, dead_letters.c.seq)
    held = tally(connection, DEAD_LETTER_BYTES)
    before_ms = _before(now_ms, bounds.dead_letter_age_s)
    oldest = connection.execute(
        select(*place, *columns, dead_letters.c.stored_bytes, dead_letters.c.recorded_ms)
        .order_by(dead_letters.c.recorded_ms)
        .limit(bounds.purge_rows)
    )
    gone, freed, verified = [], 0, []
    for row in oldest:
        if held - freed <= bounds.dead_letter_bytes and row.recorded_ms >= before_ms:
            break
        gone.append((row.topic, row.partition, row.offset))
        freed += row.stored_bytes
        if row.verified:
            verified.append((row.camera, row.boot, row.seq))
    if gone:
        connection.execute(delete(dead_letters).where(tuple_(*place).in_(gone)))
        store.archive.add(connection, Kind.DEAD_LETTER, verified)
        counts = {PURGED_VERIFIED: len(verified), PURGED_FOREIGN: len(gone) - len(verified)}
        store.tallies.add(connection, counts | {DEAD_LETTER_BYTES: -freed})
    return len(gone)


def _purge_evidence(connection: Connection, bounds: Bounds, now_ms: int) -> int:
    key = (evidence.c.camera, evidence.c.boot)
    excess = (connection.scalar(select(func.count()).select_from(evidence)) or 0) - bounds.evidence_rows
    oldest = select(*key).order_by(evidence.c.updated_ms)
    if excess > 0:
        oldest = oldest.limit(min(excess, bounds.purge_rows))
    else:
        stale = evidence.c.updated_ms < _before(now_ms, bounds.database_age_s)
        oldest = oldest.where(stale).limit(bounds.purge_rows)
    return connection.execute(delete(evidence).where(tuple_(*key).in_(oldest))).rowcount


def _purge_alerts(store: Store, connection: Connection, bounds: Bounds) -> int:
    excess = (connection.scalar(select(func.count()).select_from(alerts)) or 0) - bounds.alert_rows
    if excess <= 0:
        return 0
    # An alert that Kafka does not hold yet stays.
    oldest = select(alerts.c.alert_id).where(alerts.c.published).order_by(alerts.c.raised_ms)
    ids = oldest.limit(min(excess, bounds.purge_rows))
    gone = connection.execute(delete(alerts).where(alerts.c.alert_id.in_(ids))).rowcount
    store.tallies.add(connection, {PURGED_ALERTS: gone})
    return gone
