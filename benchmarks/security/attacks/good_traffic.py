"""The cost of an attack for the cameras that take no part in it."""

from __future__ import annotations

import math
import sqlite3

from infra.state_folder import Layout
from schemas.identity import CameraId


def p99_s(layout: Layout, since_ms: int, until_ms: int, but_not: CameraId) -> float | None:
    """Return the 99th percentile of capture-to-record latency, in seconds.

    It covers the frames captured in [since_ms, until_ms) of all cameras but one. Frames that were never recorded are
    excluded; the audit counts those.
    """
    with sqlite3.connect(f"file:{layout.database}?mode=ro", uri=True) as connection:
        taken = sorted(
            recorded - captured
            for captured, recorded in connection.execute(
                "select captured_ms, recorded_ms from frames "
                "where captured_ms >= ? and captured_ms < ? and camera != ?",
                (since_ms, until_ms, but_not),
            )
        )
    return taken[math.ceil(0.99 * len(taken)) - 1] / 1000 if taken else None
