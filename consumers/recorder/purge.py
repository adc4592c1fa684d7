"""Purge of the stores: the oldest first, in steps that block recording only briefly."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from heapq import heapify, heapreplace
from pathlib import Path
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, func, select, tuple_

from consumers.database.engine import BACKUP_COPIES
from consumers.database.frames import Excess
from consumers.database.tables import alerts, evidence
from consumers.database.tallies import FRAME_BYTES, FRAME_ROWS, PURGED_ALERTS, tally
from consumers.database.turns import may_purge, purging_alone
from consumers.recorder.store import Store
from consumers.settings import LEAST_BYTES, POSTGRESQL_BYTES, Bounds
from schemas.clock import unix_ms
from schemas.runtime.disk import free_bytes

_FILES_S: Final = 0.2
"""Seconds after which a step removes no further file of the quarantine: verdicts wait meanwhile."""


def purge(store: Store, bounds: Bounds, now_ms: int | None = None) -> bool:
    """Run one step for each store, at most `bounds.purge_rows` rows each. Return whether more is left to purge.

    Ages are measured from `now_ms`, Unix time in milliseconds; None is the wall clock. Nothing is old at 0.
    """
    now_ms = unix_ms() if now_ms is None else now_ms
    # In its own transaction: it may wait for readers, and holds no other lock meanwhile.
    with store.engine.begin() as connection:
        dropped = may_purge(connection) and store.frames.drop(connection, _excess(connection, bounds, now_ms))
    with store.engine.begin() as connection:
        if not may_purge(connection):
            return False
        taken = [
            store.frames.purge(connection, _excess(connection, bounds, now_ms), bounds.purge_rows),
            store.dead_letters.purge(connection, bounds, _before(now_ms, bounds.dead_letter_age_s)),
            _purge_evidence(connection, bounds, now_ms),
            _purge_alerts(store, connection, bounds),
            store.camera_rows.purge_strangers(connection, bounds.strangers, bounds.purge_rows),
        ]
        store.ledgers.purge(connection, bounds.camera_ledgers)
        store.history.purge(connection, _before(now_ms, bounds.database_age_s))
    return _purge_quarantine(store, bounds, now_ms) or bool(dropped) or max(taken) >= bounds.purge_rows


def _purge_quarantine(store: Store, bounds: Bounds, now_ms: int) -> bool:
    """Remove the oldest files beyond the bounds. Return whether more is left.

    An object store may take long for each file: no transaction that others wait for is open meanwhile, and recording
    waits for one file longer than `_FILES_S` at most.
    """
    stored, before_ms = store.quarantine, _before(now_ms, bounds.quarantine_age_s)
    with purging_alone(store.engine) as is_alone:
        if not is_alone:
            return False
        with store.engine.begin() as connection:
            excess = stored.excess(connection, bounds.quarantine_bytes, before_ms, bounds.purge_rows)
        gone, is_late = stored.remove(excess, _FILES_S)
        with store.engine.begin() as connection:
            stored.forget(connection, gone)
    return is_late or len(gone) >= bounds.purge_rows


def purge_frames(store: Store, bounds: Bounds, at_most: int, now_ms: int) -> None:
    """Purge at most `at_most` of the oldest frames beyond the bounds: after a batch, as many as it has recorded.

    With the steps of `purge` alone, a recorder at full rate would record more than it purges.
    """
    with store.engine.begin() as connection:
        if may_purge(connection):
            store.frames.purge(connection, _excess(connection, bounds, now_ms), at_most)


def _before(now_ms: int, age_s: float) -> int:
    return now_ms - round(age_s * 1000)


def most_frame_bytes(connection: Connection, bounds: Bounds, held: int) -> float:
    """Return the maximum bytes of the frames, which now take `held` bytes."""
    if bounds.database_bytes is not None:
        return bounds.database_bytes
    if connection.dialect.name == "postgresql":
        return POSTGRESQL_BYTES
    free = _available(connection, Path(connection.engine.url.database or "").parent)
    return max(LEAST_BYTES, (held + (0 if math.isnan(free) else free)) / 2)


def _available(connection: Connection, folder: Path) -> float:
    """Return the free bytes of the disk, the free pages in a SQLite file and the bytes of a backup's copies.

    A purge frees pages and not the disk. Without the pages, the bound would fall with the frames.
    """
    pages = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    free = free_bytes(folder) + pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    for name in BACKUP_COPIES:
        with suppress(OSError):
            free += (folder / name).stat().st_size
    return float(free)


def _excess(connection: Connection, bounds: Bounds, now_ms: int) -> Excess:
    # Not the file's size: the growth of other tables must not displace frames.
    held = tally(connection, FRAME_BYTES)
    return Excess(
        _before(now_ms, bounds.database_age_s),
        tally(connection, FRAME_ROWS) - (bounds.database_rows or 2**62),
        held - most_frame_bytes(connection, bounds, held),
    )


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
    """Delete alerts beyond the bound, which backdoor alerts and sightings have each for themselves.

    They are the oldest of the cameras with the most: no camera's alerts evict those of another with fewer.
    """
    backdoors = _purge_kind(connection, alerts.c.wanted == "", bounds)
    store.tallies.add(connection, {PURGED_ALERTS: backdoors})
    return max(backdoors, _purge_kind(connection, alerts.c.wanted != "", bounds))


def _purge_kind(connection: Connection, kind: ColumnElement[bool], bounds: Bounds) -> int:
    counts = select(alerts.c.camera, func.count()).where(kind).group_by(alerts.c.camera)
    held: Counter[str] = Counter()
    for camera, count in connection.execute(counts):
        held[camera] = count
    excess = min(held.total() - bounds.alert_rows, bounds.purge_rows)
    # An alert without Kafka's confirmation stays, and so does a sighting until it ends.
    is_over = (alerts.c.wanted == "") | (alerts.c.ended_ms != 0)
    gone = 0
    for camera, count in _from_largest(held, excess).items():
        mine = (alerts.c.camera == camera, kind, alerts.c.published, is_over)
        ids = select(alerts.c.alert_id).where(*mine).order_by(alerts.c.raised_ms).limit(count)
        gone += connection.execute(delete(alerts).where(alerts.c.alert_id.in_(ids))).rowcount
    return gone


def _from_largest(held: Mapping[str, int], excess: int) -> Counter[str]:
    """Return the number of rows that each camera loses if the camera with the most rows always loses the next one."""
    gone: Counter[str] = Counter()
    largest = [(-count, camera) for camera, count in held.items()]
    heapify(largest)
    for _ in range(excess):
        count, camera = largest[0]
        gone[camera] += 1
        heapreplace(largest, (count + 1, camera))
    return gone
