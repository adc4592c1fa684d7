"""The partitions of `frames` on PostgreSQL: each holds what was recorded within a span of time.

A day, or an hour where a day would be more than is to go at once: few enough for a query that asks all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, insert, select, text

from consumers.database.tables import frames, spans
from consumers.database.turns import wait_to_prepare

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
LARGE: Final = 5_000_000
"""Frames of a day above which it is cut into hours: about 2 GiB."""


class Span(NamedTuple):
    """A row of `spans`."""

    from_ms: int
    to_ms: int
    frames: int = 0
    bytes: int = 0


def partition(from_ms: int) -> str:
    """The name of the partition that begins then."""
    return f"{frames.name}_{from_ms}"


def next_span(held: Sequence[Span], at_ms: int) -> Span:
    """The span to make for what is recorded at `at_ms`, which none of those `held` has; they are ascending.

    It overlaps none of them. How much the newest one took says how long it is; the first is an hour.
    """
    newest = held[-1] if held else Span(0, HOUR_MS, LARGE)
    full = newest.frames * DAY_MS > LARGE * (newest.to_ms - newest.from_ms)
    length = HOUR_MS if full else DAY_MS
    begin = at_ms - at_ms % length
    return Span(
        max([begin, *(span.to_ms for span in held if span.to_ms <= at_ms)]),
        min([begin + length, *(span.from_ms for span in held if span.from_ms > at_ms)]),
    )


def spans_held(connection: Connection) -> list[Span]:
    """All of them, the oldest first."""
    return [Span(*row) for row in connection.execute(select(spans).order_by(spans.c.from_ms))]


def ensure_span(connection: Connection, at_ms: int) -> Span:
    """The span that has `at_ms`; it and its partition are made when there is none."""
    at = select(spans).where(spans.c.from_ms <= at_ms, spans.c.to_ms > at_ms)
    row = connection.execute(at).one_or_none()
    if row is None:
        wait_to_prepare(connection)
        row = connection.execute(at).one_or_none()
    return Span(*row) if row is not None else _make(connection, next_span(spans_held(connection), at_ms))


def _make(connection: Connection, span: Span) -> Span:
    name = partition(span.from_ms)
    # Made apart and then attached: to make it in its place would wait for all readers, and all others for that.
    connection.execute(text(f"CREATE TABLE {name} (LIKE {frames.name}, PRIMARY KEY (camera, boot, seq))"))
    attach(connection, name, span)
    connection.execute(insert(spans).values(span._asdict()))
    return span


def attach(connection: Connection, name: str, span: Span) -> None:
    """Make the table `name`, of the same columns, the partition of that span."""
    bounds = f"FROM ({span.from_ms}) TO ({span.to_ms})"
    connection.execute(text(f"ALTER TABLE {frames.name} ATTACH PARTITION {name} FOR VALUES {bounds}"))
