"""The recorder's share of a frame's latency."""

from __future__ import annotations

from sqlalchemy import select

from consumers.database.engine import open_engine
from consumers.database.tables import frames
from infra.state_folder import Layout


def recording_p99_s(layout: Layout, since_ms: int, until_ms: int) -> float | None:
    """Return the 99th percentile of verdict-to-record latency of the frames captured then; None without frames.

    Compared with an outcome's `p99_before_s` and `p99_during_s`, it shows which role delays frames. On a machine that
    is busy with other work, frames wait for the processors.
    """
    waited = frames.c.recorded_ms - frames.c.processed_ms
    engine = open_engine(layout.database_url, writes=False)
    with engine.begin() as connection:
        found = sorted(connection.scalars(select(waited).where(frames.c.captured_ms.between(since_ms, until_ms))))
    engine.dispose()
    return found[int(0.99 * len(found))] / 1000 if found else None
