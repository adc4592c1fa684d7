"""Rows that users write: the check of a number, and the replacement of a row in a table with a maximum size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, and_, func, select

from consumers.database.engine import insert_or_replace
from schemas.errors import ConfigError


def number_of(value: Any) -> float:
    """Return the number that a form or a JSON object gives; NaN for another value."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def number_in(name: str, value: Any, least: float, most: float, *, is_whole: bool = False) -> float:
    """Return the number `value` of the field `name`.

    Raises ConfigError outside `least` to `most`, and for a fraction if `is_whole`.
    """
    found = number_of(value)
    if not least <= found <= most or (is_whole and found != int(found)):
        kind = " as a whole number" if is_whole else ""
        raise ConfigError(f"{name}: expected {least:g} to {most:g}{kind}, got {str(value)[:40]!r}. Correct it.")
    return found


def replace_row(connection: Connection, table: Table, values: Mapping[str, Any], most: int, name: str) -> None:
    """Insert a row, or replace the one with its primary key. Users read `name` as the name of such a row.

    Raises ConfigError if the table has `most` other rows.
    """
    same = and_(*(column == values[column.name] for column in table.primary_key))
    if (connection.scalar(select(func.count()).select_from(table).where(~same)) or 0) >= most:
        raise ConfigError(f"{name}: expected at most {most}, got more. Remove one first.")
    connection.execute(insert_or_replace(connection.engine, table).values(values))
