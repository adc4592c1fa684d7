"""Rows that users write: the check of a number, and the replacement of a row in a table with a maximum size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, and_, func, select

from consumers.database.engine import insert_or_replace
from schemas.errors import ConfigError

MOST_SITES: Final = 10
"""All sites together have at most this many times the rows of one site."""


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


def of_site(column: ColumnElement[str], subject: str) -> ColumnElement[bool]:
    """Return the condition that `column` has a camera, or a group of cameras, of the same site as `subject`."""
    return column.startswith(f"{subject.partition('/')[0]}/", autoescape=True)


def replace_row(
    connection: Connection,
    table: Table,
    values: Mapping[str, Any],
    most: int,
    name: str,
    at_site: ColumnElement[bool] | None = None,
) -> None:
    """Insert a row, or replace the one with its primary key. Users read `name` as the name of such a row.

    `at_site` is the condition for rows of the row's site. Raises ConfigError if the site has `most` other rows, or all
    sites have `MOST_SITES` times as many. Without `at_site`, raises it if the table has `most` other rows.
    """
    same = and_(*(column == values[column.name] for column in table.primary_key))
    others = select(func.count()).select_from(table).where(~same)
    bounds = [(others, most, "")]
    if at_site is not None:
        bounds = [(others.where(at_site), most, " at a site"), (others, MOST_SITES * most, " at all sites")]
    for rows, bound, where in bounds:
        if (connection.scalar(rows) or 0) >= bound:
            raise ConfigError(f"{name}: expected at most {bound:,}{where}, got more. Remove one first.")
    connection.execute(insert_or_replace(connection.engine, table).values(values))
