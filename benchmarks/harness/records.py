"""Queries on the SQLite database of a system's recorder, while it runs or afterwards."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def rows(database: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows of a query. Raises sqlite3.OperationalError if there is no such database or table."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(query, values).fetchall()


def rows_so_far(database: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows of a query on a system that starts: none before the recorder has its tables."""
    try:
        return rows(database, query, *values)
    except sqlite3.OperationalError:
        return []


def count_frames(database: Path) -> int:
    """Return the number of recorded frames so far."""
    return sum(count for (count,) in rows_so_far(database, "select count(*) from frames"))
