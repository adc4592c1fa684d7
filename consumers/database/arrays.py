"""Many rows in one statement of PostgreSQL, however many they are: one array for each column, taken apart by `unnest`.

Each array goes as PostgreSQL's own text for it (PostgreSQL 15, 8.15.2), so that a statement is prepared once whatever
the numbers are, and a row costs the driver nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, Connection
from sqlalchemy.engine.interfaces import DBAPICursor

from consumers.database.engine import Row


def _plain(values: Iterable[object]) -> str:
    return ",".join(map(str, values))


def _texts(values: Iterable[str]) -> str:
    quoted = '","'.join([value.replace("\\", "\\\\").replace('"', '\\"') for value in values])
    return f'"{quoted}"'


def _bytes(values: Iterable[bytes]) -> str:
    return ",".join([f'"\\\\x{value.hex()}"' for value in values])


_TYPES: Final[Mapping[type, tuple[str, Callable[[Iterable[Any]], str]]]] = {
    int: ("bigint", _plain),
    bool: ("boolean", _plain),
    float: ("double precision", _plain),
    str: ("text", _texts),
    bytes: ("bytea", _bytes),
}


def array(kind: type, values: Sequence[object]) -> str:
    """PostgreSQL's text for an array of `values`, all int, bool, float, str or bytes as `kind` says."""
    return f"{{{_TYPES[kind][1](values)}}}" if values else "{}"


class Unnested:
    """A statement over many rows: in its text `{rows}` stands for them, a row source with the names of `columns`."""

    def __init__(self, text: str, columns: Sequence[Column[Any]]) -> None:
        self._kinds = [column.type.python_type for column in columns]
        parts = ", ".join(f"%s::{_TYPES[kind][0]}[]" for kind in self._kinds)
        names = ", ".join(f'"{column.name}"' for column in columns)
        self._text = text.format(rows=f"unnest({parts}) AS new({names})")

    def run(self, connection: Connection, rows: Sequence[Row]) -> DBAPICursor:
        """Run it with `rows`, at least one, of values in the order of the columns."""
        values = [array(kind, column) for kind, column in zip(self._kinds, zip(*rows, strict=True), strict=True)]
        cursor = connection.connection.cursor()
        cursor.execute(self._text, values)
        return cursor
