"""The number of recorded frames of a running system, by one query. An audit would read all of Kafka's files."""

from __future__ import annotations

from benchmarks.harness.records import rows_so_far
from benchmarks.harness.system import RunningSystem
from infra.state_folder import Layout
from tests.waiting import wait_until


def recorded_frames(layout: Layout, camera: str = "%", since_ms: int = 0) -> int:
    """Return the number of recorded frames captured since `since_ms` by cameras whose names match `camera` (LIKE).

    Return 0 before the recorder has created its tables.
    """
    query = "select count(*) from frames where camera like ? and captured_ms >= ?"
    return sum(count for (count,) in rows_so_far(layout.database, query, camera, since_ms))


def await_recorded(system: RunningSystem, frames: int) -> None:
    """Wait until `frames` are in the database: cameras, brokers and all roles are at work."""
    layout = Layout(system.state)

    def recorded() -> bool:
        assert system.process.poll() is None, system.output()
        return recorded_frames(layout) >= frames

    wait_until(recorded, f"{frames} frames in the database", within_s=90, every_s=0.2)


def await_more_recorded(system: RunningSystem, frames: int = 20) -> None:
    """Wait until `frames` more than now are in the database."""
    await_recorded(system, recorded_frames(Layout(system.state)) + frames)
