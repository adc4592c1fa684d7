"""The partitions of `frames` on PostgreSQL: each holds the frames recorded within a time span.

A span is a day, or an hour if a day would be too much to drop at once. A query over all partitions stays fast with that
number of spans.
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
"""Frames of a day above which its span is split into hours: about 2 GiB."""


class Span(NamedTuple):
    """A row of the table `spans`."""

    from_ms: int
    to_ms: int
    frames: int = 0
    bytes: int = 0


def partition(from_ms: int) -> str:
    """Return the name of the partition that begins at that time."""
    return f"{frames.name}_{from_ms}"


def next_span(held: Sequence[Span], at_ms: int) -> Span:
    """Return a new span for frames recorded at `at_ms`, which none of the ascending `held` spans contains.

    It overlaps no other span. Its length depends on the size of the one before it; the first is an hour. Later spans do
    not count: after a clock was ahead, one of them holds few frames, and stays the newest for long.
    """
    earlier = [span for span in held if span.to_ms <= at_ms]
    before = earlier[-1] if earlier else Span(0, HOUR_MS, LARGE)
    full = before.frames * DAY_MS > LARGE * (before.to_ms - before.from_ms)
    length = HOUR_MS if full else DAY_MS
    begin = at_ms - at_ms % length
    return Span(
        max([begin, *(span.to_ms for span in earlier)]),
        min([begin + length, *(span.from_ms for span in held if span.from_ms > at_ms)]),
    )


def spans_held(connection: Connection) -> list[Span]:
    """Return all spans, oldest first."""
    return [Span(*row) for row in connection.execute(select(spans).order_by(spans.c.from_ms))]


def ensure_span(connection: Connection, at_ms: int) -> Span:
    """Return the span that contains `at_ms`. Create it and its partition if there is none."""
    at = select(spans).where(spans.c.from_ms <= at_ms, spans.c.to_ms > at_ms)
    row = connection.execute(at).one_or_none()
    if row is None:
        wait_to_prepare(connection)
        row = connection.execute(at).one_or_none()
    return Span(*row) if row is not None else _make(connection, next_span(spans_held(connection), at_ms))


def _make(connection: Connection, span: Span) -> Span:
    name = partition(span.from_ms)
    # Created separately and then attached: CREATE in place would wait for all readers and block everybody else.
    connection.execute(text(f"CREATE TABLE {name} (LIKE {frames.name}, PRIMARY KEY (camera, boot, seq))"))
    attach(connection, name, span)
    connection.execute(insert(spans).values(span._asdict()))
    return span


def attach(connection: Connection, name: str, span: Span) -> None:
    """Attach the table `name`, with the same columns, as the partition of that span."""
    bounds = f"FROM ({span.from_ms}) TO ({span.to_ms})"
    connection.execute(text(f"ALTER TABLE {frames.name} ATTACH PARTITION {name} FOR VALUES {bounds}"))
