"""Snapshots of the cameras in the database: a restart reads one row for each camera, and the frames since the snapshot.

The recorder saves some cameras at a time, next to recording.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import structlog
from sqlalchemy import Connection, Engine, delete, func, select

from consumers.cameras.camera import RECENT_PROBES, Camera
from consumers.cameras.picture_health import PictureHealth
from consumers.database.cameras import boot_totals
from consumers.database.engine import PreparedStatement, insert_or_replace
from consumers.database.tables import boots, camera_snapshots, cameras, frames
from consumers.database.tallies import SNAPSHOTS_TO_MS, Tallies, tally
from consumers.records.rows import CameraRow, FrameRow
from schemas.limits import MAX_CAMERAS

SAVED_AT_ONCE: Final = 2_000
_READ_AT_ONCE: Final = 500
_FRAMES: Final = func.sum(boots.c.frames)
"""Number of a camera's recorded frames, purged ones included."""

log = structlog.get_logger()

_UNSAVED_MS: Final = 60_000
"""Time before the last snapshot from which frames are read again. A recorder that died may not have saved their
cameras; the others take over after their `session_timeout_s`, and save their own cameras meanwhile."""


class Snapshots:
    """Reads and writes the table `camera_snapshots`. For the database thread only."""

    def __init__(self, engine: Engine, strangers: int) -> None:
        """Prepare. `load` returns at most `strangers` cameras with a status and without a frame."""
        self._engine = engine
        self._strangers = strangers
        self._save = PreparedStatement(engine, insert_or_replace(engine, camera_snapshots))
        self._tallies = Tallies(engine)

    def save(self, changed: Sequence[Camera], to_ms: int) -> None:
        """Save these cameras; the snapshots then hold all frames that were recorded before `to_ms`.

        Their frames are counted in the database: another recorder may have recorded some of them.
        """
        kept = [(camera, camera.last) for camera in changed if camera.last is not None]
        with self._engine.begin() as connection:
            if kept:
                counts = boot_totals(connection, [camera.name for camera, _ in kept], _FRAMES)
                rows = [
                    {
                        "camera": camera.name,
                        "heard_ms": last.recorded_ms,
                        "state": _state(camera, counts.get(camera.name, camera.frames)),
                    }
                    for camera, last in kept
                ]
                self._save.run_each(connection, rows)
            self._tallies.set(connection, SNAPSHOTS_TO_MS, to_ms)

    def purge(self) -> None:
        """Delete the snapshots beyond those that a cache holds, the cameras with the oldest frames first."""
        oldest = select(camera_snapshots.c.camera).order_by(camera_snapshots.c.heard_ms.desc()).offset(MAX_CAMERAS)
        with self._engine.begin() as connection:
            connection.execute(delete(camera_snapshots).where(camera_snapshots.c.camera.in_(oldest)))

    def load(self) -> list[Camera]:
        """Return the cameras with the most recent frames, and some that have a status only."""
        with self._engine.begin() as connection:
            to_ms = tally(connection, SNAPSHOTS_TO_MS)
            found = self._as_saved(connection, to_ms)
            most = len(found) + self._strangers
            newest = select(cameras).order_by(cameras.c.seen_ms.desc())
            for row in connection.execution_options(yield_per=_READ_AT_ONCE).execute(newest):
                if row.camera in found or len(found) < most:
                    found.setdefault(row.camera, Camera(row.camera)).record_status(CameraRow(*row))
            return list(found.values())

    def _as_saved(self, connection: Connection, to_ms: int) -> dict[str, Camera]:
        rows = connection.execute(
            select(camera_snapshots.c.camera, camera_snapshots.c.state)
            .order_by(camera_snapshots.c.heard_ms.desc())
            .limit(MAX_CAMERAS)
        )
        saved = [saved_camera(name, state) for name, state in rows]
        found = {camera.name: camera for camera in saved if camera is not None}
        # A snapshot may be newer than `to_ms`: only frames after the last one of a camera are taken.
        heard = {name: camera.last.recorded_ms for name, camera in found.items() if camera.last is not None}
        # Another recorder that died may have recorded frames before `to_ms` without saving its cameras.
        from_ms = to_ms - _UNSAVED_MS
        later = select(frames).where(frames.c.recorded_ms >= from_ms).order_by(frames.c.recorded_ms)
        changed = set()
        for row in connection.execution_options(yield_per=_READ_AT_ONCE).execute(later):
            frame = FrameRow(*row)
            camera = found.get(frame.camera)
            if camera is None:
                camera = found[frame.camera] = Camera(frame.camera)
            if frame.recorded_ms > heard.get(frame.camera, -1):
                camera.record_frame(frame)
                changed.add(frame.camera)
        for name, count in boot_totals(connection, sorted(changed), _FRAMES).items():
            found[name].frames = count
        return found


def _state(camera: Camera, count: int) -> str:
    return json.dumps(
        [
            count, camera.last, camera.entropy_bits, "".join("01"[flagged] for flagged in camera.probes),
            camera.boot, camera.level, camera.is_new, camera.health.pictures, camera.health.sharpness,
        ]
    )  # fmt: skip


def saved_camera(name: str, state: str) -> Camera | None:
    """Return the camera of a row of `camera_snapshots`; None for a row of another release.

    Such a row is logged, and the camera's next frame replaces it. A row of an earlier release ends before the number of
    pictures and their usual sharpness.
    """
    try:
        count, last, entropy_bits, probes, boot, level, is_new, *learned = json.loads(state)
        row = FrameRow(*last)
        pictures, sharpness = learned or (0, 0.0)
    except (TypeError, ValueError):
        log.warning(
            "camera_not_read", camera=name, error=f"snapshot: expected seven or nine values, got {state[:80]!r}"
        )
        return None
    flagged: Iterable[bool] = (each == "1" for each in probes)
    return Camera(
        name, count, row, entropy_bits=entropy_bits, probes=deque(flagged, RECENT_PROBES),
        boot=boot, level=level, is_new=is_new, health=PictureHealth(pictures=pictures, sharpness=sharpness),
    )  # fmt: skip
