"""The gaps between verdicts in the drill of three nodes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from benchmarks.reliability.nodes import gaps
from consumers.database.tables import frames


def test_a_gap_is_the_time_between_two_verdicts_of_a_camera_in_any_order_of_frames(tmp_path: Path) -> None:
    file = tmp_path / "frames.sqlite"
    rows = [("a", 3, 1_000), ("a", 1, 1_250), ("a", 2, 4_250), ("b", 1, 1_100), ("b", 2, 1_200), ("c", 1, 9_000)]
    columns = [column.name for column in frames.columns]
    assert {"camera", "seq", "recorded_ms"} <= set(columns)
    with sqlite3.connect(file) as connection:
        connection.execute("create table frames (camera text, seq integer, recorded_ms integer)")
        connection.executemany("insert into frames values (?, ?, ?)", rows)
    connection.close()
    assert sorted(gaps(file)) == [(1_200, 0.1), (1_250, 0.25), (4_250, 3.0)]
