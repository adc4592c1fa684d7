"""The recovery of cameras from faults in the middle of groups of pictures, computed from the records."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from benchmarks.reliability.groups import Span, await_recovery, recovery

FAULT_MS = 10_000


def database(folder: Path, frames: list[tuple[str, int, int]]) -> Path:
    """Return a database with frames (camera, captured_ms, waited_ms)."""
    file = folder / "recorder.db"
    with sqlite3.connect(file) as connection:
        connection.execute("create table frames (camera text, captured_ms integer, recorded_ms integer)")
        connection.executemany("insert into frames values (?, ?, ? + ?)", [(c, at, at, wait) for c, at, wait in frames])
    connection.close()
    return file


def late(camera: str, back_after_ms: int) -> list[tuple[str, int, int]]:
    """Return one frame per second; frames that are captured during the fault wait until the camera is back."""
    return [
        (camera, at, 50 if at < FAULT_MS else max(50, FAULT_MS + back_after_ms - at)) for at in range(500, 40_000, 1000)
    ]


def test_recovery_ends_with_the_first_live_frame_of_the_slowest_camera(tmp_path: Path) -> None:
    file = database(tmp_path, late("a", 0) + late("b", 4000) + late("c", 9000))
    recovered = await_recovery(file, FAULT_MS)
    assert recovered == FAULT_MS + 9000
    found = recovery(file, Span(FAULT_MS, recovered, 30_000))
    assert found["recovered_after_s"] == 9.0
    assert found["p99_s"] == 0.05
    assert found["frames"] == 3 * 11
    assert found["waited_s"] == {"a": 0.05, "b": 3.5, "c": 8.5}


def test_a_camera_that_stays_behind_prevents_the_recovery(tmp_path: Path) -> None:
    file = database(tmp_path, late("a", 0) + late("b", 0) + late("c", 60_000))
    with pytest.raises(TimeoutError, match="expected 3 cameras to recover within 0 s, got 2"):
        await_recovery(file, FAULT_MS, 0)


def test_a_slow_frame_after_the_recovery_counts(tmp_path: Path) -> None:
    file = database(tmp_path, [*late("a", 0), *late("b", 0), *late("c", 0), ("a", 25_000, 3000)])
    assert recovery(file, Span(FAULT_MS, FAULT_MS + 50, 30_000))["p99_s"] == 3.0
    assert recovery(file, Span(5000, None, FAULT_MS))["recovered_after_s"] is None
