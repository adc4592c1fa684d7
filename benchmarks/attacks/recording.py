"""The recorder's own part of what a frame waits."""

from __future__ import annotations

from sqlalchemy import select

from consumers.database.engine import open_engine
from consumers.database.tables import frames
from infra.layout import Layout


def recording_p99_s(layout: Layout, since_ms: int, until_ms: int) -> float | None:
    """99 % of the frames captured then went from verdict to record so fast; None without frames.

    Beside `p99_before_s` and `p99_during_s` of an outcome it says whose the delay is: on a machine that is busy with
    other work, frames wait for the processors.
    """
    waited = frames.c.recorded_ms - frames.c.processed_ms
    engine = open_engine(layout.database_url, writes=False)
    with engine.begin() as connection:
        found = sorted(connection.scalars(select(waited).where(frames.c.captured_ms.between(since_ms, until_ms))))
    engine.dispose()
    return found[int(0.99 * len(found))] / 1000 if found else None
