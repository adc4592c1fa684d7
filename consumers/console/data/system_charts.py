"""The charts of the System page, and their columns from the recorder's own history."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, select

from consumers.console.data.history import plot_columns
from consumers.console.data.rollup import DAY_MS, HOUR_MS
from consumers.database.history import MINUTE_MS
from consumers.database.tables import alerts

RANGES: Final = {"15 minutes": HOUR_MS // 4, "hour": HOUR_MS, "6 hours": 6 * HOUR_MS, "day": DAY_MS}
USUAL: Final = "15 minutes"
_NAMES: Final = ("rate", "late_s", "slowest_s", "sent", "saved", "accuracy", "robust", "flagged", "alerts")
CHARTS: Final[tuple[dict[str, Any], ...]] = (
    {"title": "Frames per second", "series": [["rate", "frames/s"]]},
    {"title": "Latency from capture to record", "unit": "s", "series": [["late_s", "mean"], ["slowest_s", "slowest"]]},
    {
        "title": "Bytes saved and probes flagged",
        "unit": "%",
        "series": [["saved", "saved"], ["flagged", "flagged"]],
        "range": [0, 1],
    },
    {"title": "Alerts per hour", "series": [["alerts", "alerts"]]},
)
TRUTH: Final[dict[str, Any]] = {
    "title": "Accuracy over frames with a known class",
    "unit": "%",
    "series": [["accuracy", "clean"], ["robust", "under attack"]],
    "range": [0, 1],
}


def alerts_by_minute(connection: Connection, since_ms: int) -> dict[int, int]:
    """Return the number of backdoor alerts raised in each minute."""
    found: dict[int, int] = {}
    raised = select(alerts.c.raised_ms).where(alerts.c.wanted == "", alerts.c.raised_ms >= since_ms)
    for at_ms in connection.scalars(raised):
        minute_ms = at_ms - at_ms % MINUTE_MS
        found[minute_ms] = found.get(minute_ms, 0) + 1
    return found


def by_column(found: list[dict[str, int]], raised: dict[int, int]) -> dict[str, list[float | None]]:
    """Return plot columns of frames and alerts by minute, with one row of nulls in each gap."""

    def values(row: dict[str, int]) -> dict[str, float | None]:
        return {
            "rate": row["frames"] / 60,
            "late_s": row["late_ms"] / row["frames"] / 1000,
            "slowest_s": row["slowest_ms"] / 1000,
            "sent": row["frame_bytes"] / 60,
            "saved": 1 - row["frame_bytes"] / row["raw_bytes"] if row["raw_bytes"] else None,
            "accuracy": row["judged_correct"] / row["judged"] if row["judged"] else None,
            "robust": row["attacked_correct"] / row["attacked"] if row["attacked"] else None,
            "flagged": row["flagged"] / row["checked"] if row["checked"] else None,
            "alerts": 60.0 * raised.get(row["minute_ms"], 0),
        }

    return plot_columns(_NAMES, ((row["minute_ms"], values(row)) for row in found), MINUTE_MS)
