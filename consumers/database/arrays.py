"""Bulk statements for PostgreSQL: one array for each column, expanded by `unnest`.

Each array is sent in PostgreSQL's own text form (PostgreSQL 15, 8.15.2). The statement is therefore prepared once for
any number of rows, and the driver does no work for each row.
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
    """Return PostgreSQL's text form of an array. All `values` are of `kind`: int, bool, float, str or bytes."""
    return f"{{{_TYPES[kind][1](values)}}}" if values else "{}"


class UnnestStatement:
    """A statement over many rows. `{rows}` in its text stands for a row source with the names of `columns`."""

    def __init__(self, text: str, columns: Sequence[Column[Any]]) -> None:
        self._kinds = [column.type.python_type for column in columns]
        parts = ", ".join(f"%s::{_TYPES[kind][0]}[]" for kind in self._kinds)
        names = ", ".join(f'"{column.name}"' for column in columns)
        self._text = text.format(rows=f"unnest({parts}) AS new({names})")

    def run(self, connection: Connection, rows: Sequence[Row]) -> DBAPICursor:
        """Run the statement with at least one row; values are in the order of the columns."""
        values = [array(kind, column) for kind, column in zip(self._kinds, zip(*rows, strict=True), strict=True)]
        cursor = connection.connection.cursor()
        cursor.execute(self._text, values)
        return cursor
