"""Incremental poller of the cameras in the recorder's database, for Home Assistant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from consumers.cameras.camera import Camera
from consumers.cameras.open_alerts import lasting_sightings
from consumers.cameras.saved import SavedState, read_states
from consumers.cameras.snapshots import saved_camera
from consumers.database.cameras import boot_totals, last_recorded
from consumers.database.console_store import read_forgotten
from consumers.database.engine import settled_at_ms
from consumers.database.recorded import RecorderDatabase
from consumers.database.tables import camera_snapshots, cameras, frames
from consumers.homeassistant.discovery import CameraSnapshot
from consumers.records.rows import CameraRow
from schemas.clock import unix_ms

RECENT_S: Final = 60.0


@dataclass
class _Bytes:
    saved: int = 0
    sent: float = 0.0
    """Decaying sums of recent bytes."""
    raw: float = 0.0

    def add(self, sent: int, raw: int) -> None:
        self.saved += max(0, raw - sent)
        self.sent += sent
        self.raw += raw

    def fade(self, seconds: float) -> None:
        factor = math.exp(-seconds / RECENT_S)
        self.sent, self.raw = self.sent * factor, self.raw * factor

    @property
    def share(self) -> float | None:
        return max(0.0, 1 - self.sent / self.raw) if self.raw >= 1 else None


class DatabaseReader:
    """Polls the recorder's database. For one thread at a time."""

    def __init__(self, recorded: RecorderDatabase, console_url: str = "") -> None:
        """`console_url` is the SQLAlchemy URL of the console's database, empty without one. It is only read."""
        self._recorded = recorded
        self._console_url = console_url
        self._forgotten: dict[str, int] = {}
        """The forgotten cameras and their Unix times, also while the console's database does not respond."""
        self._names: set[str] = set()
        """The cameras in the database at the last poll, also those that cannot be read."""
        self._cameras: dict[str, Camera] = {}
        self._bytes: dict[str, _Bytes] = {}
        self._statuses: dict[str, CameraRow] = {}
        """The newest status of each camera, also of those that have sent no frame yet."""
        self._states: dict[str, SavedState] = {}
        self._seen: dict[str, tuple[str, ...]] = {}
        self._read_to_ms = 0
        self._counted_to_ms = 0

    @property
    def removed(self) -> set[str]:
        """The cameras in the database that people have removed, and that have sent nothing since."""
        return {name for name, camera in self._cameras.items() if camera.recorded_ms <= self._forgotten.get(name, -1)}

    def poll(self) -> list[CameraSnapshot]:
        """Return all cameras that have sent frames and are not forgotten, in their current state.

        Raises SQLAlchemy's errors, and StateError.
        """
        now_ms = unix_ms()
        engine = self._recorded.engine()
        since_ms, counted_to_ms = settled_at_ms(engine, self._read_to_ms), settled_at_ms(engine, now_ms)
        # After the clock was set back, frames are recorded from the present on.
        self._counted_to_ms = min(self._counted_to_ms, counted_to_ms)
        with engine.begin() as connection:
            names = set(connection.scalars(select(camera_snapshots.c.camera)))
            if not names <= self._names:
                since_ms = 0  # a restored database adds rows that were written long ago
            for row in connection.execute(select(camera_snapshots).where(camera_snapshots.c.heard_ms >= since_ms)):
                self._update_camera(row.camera, row.state)
            for row in connection.execute(select(cameras).where(cameras.c.seen_ms >= since_ms)):
                self._record_status(CameraRow(*row))
            for state in read_states(connection, max(0, since_ms)):
                self._states[state.camera] = state
            self._update_late(connection, now_ms)
            self._seen = lasting_sightings(connection, now_ms)
            if self._counted_to_ms:
                self._count(connection, self._counted_to_ms, counted_to_ms)
        self._read_to_ms, self._counted_to_ms = now_ms, counted_to_ms
        self._names = names
        for name in self._cameras.keys() - names:
            del self._cameras[name]
            self._bytes.pop(name, None)
            self._states.pop(name, None)
        if self._console_url:
            self._forgotten |= read_forgotten(self._console_url)
        removed = self.removed
        return [
            self._snapshot(camera, now_ms)
            for name, camera in sorted(self._cameras.items())
            if camera.last is not None and name not in removed
        ]

    def _update_camera(self, name: str, state: str) -> None:
        fresh = saved_camera(name, state)
        if fresh is None:
            return
        if (status := self._statuses.get(name)) is not None:
            fresh.record_status(status)
        if fresh.last is not None:
            # Ages use the wall clock, the only clock that the reader shares with the recorder.
            fresh.heard_ms = fresh.last.recorded_ms
        fresh.status_seen_ms = fresh.status.state_ms if fresh.status is not None else 0
        self._cameras[name] = fresh

    def _record_status(self, row: CameraRow) -> None:
        self._statuses[row.camera] = row
        known = self._cameras.get(row.camera)
        if known is not None:
            known.record_status(row)
            known.status_seen_ms = row.state_ms

    def _update_late(self, connection: Connection, now_ms: int) -> None:
        """Read the last frame's time of cameras that seem silent: in a large fleet, snapshots are saved late."""
        late = [
            name
            for name, camera in self._cameras.items()
            if (saved := self._states.get(name)) is not None and saved.now(camera.heard_ms, now_ms) != saved.judged
        ]
        for name, recorded_ms in boot_totals(connection, late, last_recorded(now_ms)).items():
            camera = self._cameras[name]
            camera.heard_ms = max(camera.heard_ms, recorded_ms)

    def _count(self, connection: Connection, since_ms: int, to_ms: int) -> None:
        """Add the bytes of the frames recorded from `since_ms` to before `to_ms`."""
        for counted in self._bytes.values():
            counted.fade((to_ms - since_ms) / 1000)
        raw = frames.c.width * frames.c.height * frames.c.channels
        query = (
            select(frames.c.camera, func.sum(frames.c.frame_bytes).label("sent"), func.sum(raw).label("raw"))
            .where(frames.c.recorded_ms >= since_ms, frames.c.recorded_ms < to_ms)
            .group_by(frames.c.camera)
        )
        for row in connection.execute(query):
            self._bytes.setdefault(row.camera, _Bytes()).add(int(row.sent), int(row.raw))

    def _snapshot(self, camera: Camera, now_ms: int) -> CameraSnapshot:
        counted = self._bytes.get(camera.name, _Bytes())
        assert camera.last is not None
        saved = self._states.get(camera.name)
        judged = camera.judge(now_ms) if saved is None else saved.now(camera.heard_ms, now_ms)
        return CameraSnapshot(
            camera=camera.name,
            state=judged.state.value,
            class_name=camera.last.class_name,
            class_group=camera.last.class_group,
            best=camera.last.best,
            backdoor=camera.level >= 1.0,
            detail=judged.reason,
            confidence=camera.last.confidence,
            saved_share=counted.share,
            saved_bytes=counted.saved,
            seen=self._seen.get(camera.name, ()),
        )
