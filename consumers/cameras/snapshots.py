"""Snapshots of the cameras in the database: a restart reads one row for each camera, and the frames since the snapshot.

The recorder saves some cameras at a time, next to recording.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import BindParameter, Connection, Engine, bindparam, delete, func, select

from consumers.cameras.camera import RECENT_PROBES, Camera
from consumers.database.engine import PreparedStatement, upsert
from consumers.database.tables import boots, camera_snapshots, cameras, frames
from consumers.database.tallies import SNAPSHOTS_TO_MS, Tallies, tally
from consumers.records.rows import CameraRow, FrameRow
from schemas.batched import batched
from schemas.errors import StateError
from schemas.limits import MAX_CAMERAS

SAVED_AT_ONCE: Final = 2_000
_READ_AT_ONCE: Final = 500


class Snapshots:
    """Reads and writes the table `camera_snapshots`. For the database thread only."""

    def __init__(self, engine: Engine, strangers: int) -> None:
        """Prepare. `load` returns at most `strangers` cameras with a status and without a frame."""
        self._engine = engine
        self._strangers = strangers
        insertion = upsert(engine, camera_snapshots)
        columns = {name: insertion.excluded[name] for name in ("heard_ms", "state")}
        self._save = PreparedStatement(
            engine, insertion.on_conflict_do_update(index_elements=[camera_snapshots.c.camera], set_=columns)
        )
        self._tallies = Tallies(engine)
        of: BindParameter[str] = bindparam("of")
        self._statuses = PreparedStatement(engine, select(cameras).where(cameras.c.camera == of))

    def save(self, changed: Sequence[Camera], to_ms: int) -> None:
        """Save these cameras; the snapshots then hold all frames that were recorded before `to_ms`.

        Their frames are counted in the database: another recorder may have recorded some of them.
        """
        kept = [(camera, camera.last) for camera in changed if camera.last is not None]
        with self._engine.begin() as connection:
            if kept:
                counts = _frames_of(connection, [camera.name for camera, _ in kept])
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
            for name, camera in found.items():
                row = self._statuses.run(connection, of=name).fetchone()
                if row is not None:
                    camera.record_status(CameraRow(*row))
            strange = select(cameras).order_by(cameras.c.seen_ms.desc()).limit(self._strangers)
            for row in connection.execute(strange):
                if row.camera not in found:
                    found[row.camera] = Camera(row.camera)
                    found[row.camera].record_status(CameraRow(*row))
            return list(found.values())

    def _as_saved(self, connection: Connection, to_ms: int) -> dict[str, Camera]:
        rows = connection.execute(
            select(camera_snapshots.c.camera, camera_snapshots.c.state)
            .order_by(camera_snapshots.c.heard_ms.desc())
            .limit(MAX_CAMERAS)
        )
        found = {name: saved_camera(name, state) for name, state in rows}
        # A snapshot may be newer than `to_ms`: only frames after the last one of a camera are taken.
        heard = {name: camera.last.recorded_ms for name, camera in found.items() if camera.last is not None}
        later = select(frames).where(frames.c.recorded_ms >= to_ms).order_by(frames.c.recorded_ms)
        changed = set()
        for row in connection.execution_options(yield_per=_READ_AT_ONCE).execute(later):
            frame = FrameRow(*row)
            camera = found.get(frame.camera)
            if camera is None:
                camera = found[frame.camera] = Camera(frame.camera)
            if frame.recorded_ms > heard.get(frame.camera, -1):
                camera.record_frame(frame)
                changed.add(frame.camera)
        for name, count in _frames_of(connection, sorted(changed)).items():
            found[name].frames = count
        return found


def _frames_of(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """Return the numbers of frames recorded of these cameras, purged ones included."""
    found: dict[str, int] = {}
    for some in batched(names):
        mine = boots.c.camera.in_(some)
        query = select(boots.c.camera, func.sum(boots.c.frames)).where(mine).group_by(boots.c.camera)
        found |= {name: int(count) for name, count in connection.execute(query)}
    return found


def _state(camera: Camera, count: int) -> str:
    return json.dumps(
        [
            count, camera.last, camera.entropy_bits, "".join("01"[flagged] for flagged in camera.probes),
            camera.boot, camera.level, camera.is_new,
        ]
    )  # fmt: skip


def saved_camera(name: str, state: str) -> Camera:
    """Return the camera of a row of `camera_snapshots`. Raises StateError if `Snapshots.save` did not write it."""
    try:
        count, last, entropy_bits, probes, boot, level, is_new = json.loads(state)
        row = FrameRow(*last)
    except (TypeError, ValueError):
        raise StateError(f"snapshot of {name}: expected a list of seven values, got {state[:80]!r}") from None
    flagged: Iterable[bool] = (each == "1" for each in probes)
    return Camera(
        name, count, row, entropy_bits=entropy_bits, probes=deque(flagged, RECENT_PROBES),
        boot=boot, level=level, is_new=is_new,
    )  # fmt: skip
