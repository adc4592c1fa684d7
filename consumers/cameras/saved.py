"""The judged states of cameras in the recorder's database: written by the recorder, read by all other programs.

A recorder of a group judges only the cameras of its partitions. If two have judged the same camera, after its partition
has moved, the one with the newer frame wins: the other one takes the camera for silent, and must not replace the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, delete, func, inspect, select

from consumers.cameras.state import State, StateWithReason, current
from consumers.database.cameras import boot_totals, last_recorded
from consumers.database.engine import PreparedStatement, insert_or_replace
from consumers.database.tables import camera_snapshots, camera_states, cameras
from schemas.clock import unix_ms


@dataclass(frozen=True, slots=True)
class SavedState:
    """A row of the table `camera_states`."""

    camera: str
    judged: StateWithReason
    since_ms: int
    """When the state began, Unix time."""
    patience_s: float
    """Without a frame for this long the camera is silent."""

    def now(self, frame_ms: int | None, now_ms: int) -> StateWithReason:
        """Return the state at `now_ms`, with the last frame recorded at `frame_ms` on the same clock."""
        return current(self.judged, frame_ms, self.patience_s, now_ms)


class CameraStates:
    """Writes the table `camera_states`. For the database thread only."""

    def __init__(self, engine: Engine, most: int) -> None:
        """Beyond `most` rows, those of cameras that nothing else is known of are purged."""
        self._engine = engine
        self._most = most
        self._save = PreparedStatement(engine, insert_or_replace(engine, camera_states))

    def save(self, changed: Sequence[tuple[SavedState, int]]) -> None:
        """Write states, each with the Unix time up to which its judge knows the camera's frames, 0 for never."""
        with self._engine.begin() as connection:
            # Not before: the transaction may have waited, and readers follow this time.
            now_ms = unix_ms()
            quiet = [saved.camera for saved, _ in changed if saved.judged.state is State.SILENT]
            newest = boot_totals(connection, quiet, last_recorded(now_ms))
            rows = [
                {
                    "camera": saved.camera,
                    "state": saved.judged.state.value,
                    "reason": saved.judged.reason,
                    "since_ms": saved.since_ms,
                    "patience_s": saved.patience_s,
                    "saved_ms": now_ms,
                }
                for saved, known_to_ms in changed
                if newest.get(saved.camera, 0) <= known_to_ms
            ]
            if rows:
                self._save.run_each(connection, rows)

    def purge(self) -> None:
        """Delete the states of cameras that have neither a snapshot nor a message of their own."""
        known = select(camera_snapshots.c.camera).union(select(cameras.c.camera)).subquery()
        with self._engine.begin() as connection:
            if (connection.scalar(select(func.count()).select_from(camera_states)) or 0) <= self._most:
                return
            connection.execute(delete(camera_states).where(camera_states.c.camera.not_in(select(known.c.camera))))


def read_states(connection: Connection, since_ms: int = 0) -> list[SavedState]:
    """Return the states that were written at or after `since_ms` (Unix time), all for 0.

    States that only a later release knows are left out. A database that only an earlier one has opened has none.
    """
    query = select(camera_states)
    if since_ms:
        query = query.where(camera_states.c.saved_ms >= since_ms)
    elif not inspect(connection).has_table(camera_states.name):
        return []
    known = {state.value for state in State}
    return [
        SavedState(row.camera, StateWithReason(State(row.state), row.reason), row.since_ms, row.patience_s)
        for row in connection.execute(query)
        if row.state in known
    ]
