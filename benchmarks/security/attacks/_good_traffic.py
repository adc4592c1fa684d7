"""The cost of an attack for the cameras that take no part in it."""

from __future__ import annotations

import math
import time

from benchmarks.harness.records import rows, rows_so_far
from infra.state_folder import Layout
from schemas.identity import CameraId


def refused(layout: Layout) -> dict[str, int]:
    """Return the number of dead letters for each reason."""
    return dict(rows(layout.database, "select reason, count(*) from dead_letters group by reason"))


def await_frames(layout: Layout, cameras: int, deadline_s: float = 60.0) -> None:
    """Wait until a frame of every camera is recorded."""
    end = time.monotonic() + deadline_s
    while len(rows_so_far(layout.database, "select distinct camera from frames")) < cameras:
        if time.monotonic() > end:
            raise TimeoutError(
                f"recorded frames: expected some of all {cameras} cameras within {deadline_s:g} s, got fewer"
            )
        time.sleep(0.2)


def p99_s(layout: Layout, since_ms: int, until_ms: int, but_not: CameraId) -> float | None:
    """Return the 99th percentile of capture-to-record latency, in seconds.

    It covers the frames captured in [since_ms, until_ms) of all cameras but one. Frames that were never recorded are
    excluded; the audit counts those.
    """
    query = "select recorded_ms - captured_ms from frames where captured_ms >= ? and captured_ms < ? and camera != ?"
    taken = sorted(ms for (ms,) in rows(layout.database, query, since_ms, until_ms, but_not))
    return taken[math.ceil(0.99 * len(taken)) - 1] / 1000 if taken else None
