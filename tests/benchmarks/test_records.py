"""Queries on a recorder's database before and after it has tables."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.harness.records import count_frames, rows, rows_so_far


def test_a_starting_system_has_no_rows_and_a_finished_run_must_have_a_database(tmp_path: Path) -> None:
    database = tmp_path / "records.sqlite"
    query = "select seq from frames where seq > ?"
    for has_file in (False, True):
        if has_file:
            sqlite3.connect(database).close()
        assert rows_so_far(database, query, 0) == []
        assert count_frames(database) == 0
        with pytest.raises(sqlite3.OperationalError):
            rows(database, query, 0)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("create table frames (seq integer)")
        connection.executemany("insert into frames values (?)", [(0,), (1,), (2,)])
    assert rows(database, query, 0) == rows_so_far(database, query, 0) == [(1,), (2,)]
    assert count_frames(database) == 3
