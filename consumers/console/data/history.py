"""One camera's history for its page: columns over time, and outages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import Connection, Engine, select

from consumers.cameras.open_alerts import KINDS
from consumers.console.data.rollup import DAY_MS, HOUR_MS, MINUTE_MS, classes_of, last_sum_ms, spans, summed_to
from consumers.database.console_store import NO_ENTROPY, camera_hours, camera_minutes
from consumers.database.tables import alerts

RANGES: Final = {
    "15 minutes": 15 * MINUTE_MS,
    "hour": HOUR_MS,
    "day": DAY_MS,
    "week": 7 * DAY_MS,
    "month": 31 * DAY_MS,
    "year": 366 * DAY_MS,
}
USUAL: Final = "15 minutes"
_BY_THE_HOUR_FROM: Final = 2 * DAY_MS
_MOST_OUTAGES: Final = 1_000
_MOST_ALERTS: Final = 100
"""Maximum number of alerts of each kind."""


@dataclass(frozen=True)
class Outage:
    """A time span without any captured frame, after which the camera is silent."""

    since_ms: int
    until_ms: int


def history(
    engine: Engine, camera: str, since_ms: int, until_ms: int, patience_s: float, *, sends: bool
) -> dict[str, Any]:
    """Return columns over time in uPlot's JSON form. A null value interrupts the line.

    A camera that `sends` now has no outage that lasts: its newest frames may have been captured long ago. An outage may
    have begun before `since_ms`.

    `t` is in Unix seconds. Spans up to two days have one value a minute, longer ones one an hour. A minute or an hour
    that is not over, or not summed to its end, has no value. Verdicts are counted by the hour, from `classes_since_s`.
    """
    step_ms = MINUTE_MS if until_ms - since_ms <= _BY_THE_HOUR_FROM else HOUR_MS
    table = camera_minutes if step_ms == MINUTE_MS else camera_hours
    begin_ms, hour_ms = since_ms - since_ms % step_ms, since_ms - since_ms % HOUR_MS
    with engine.begin() as connection:
        summed_ms = min(until_ms, summed_to(connection))
        found = spans(connection, table, camera, begin_ms, until_ms)
        classes = classes_of(connection, camera, hour_ms, until_ms)
        before_ms = last_sum_ms(connection, camera, begin_ms)
        last_ms = None if sends else last_sum_ms(connection, camera, until_ms)
    begins_ms = [row["begin_ms"] for row in found]
    gaps = outages(before_ms, begins_ms, step_ms, 1000 * patience_s, last_ms, summed_ms)
    return {
        "span_s": (begin_ms / 1000, until_ms / 1000),
        "summed_to_s": summed_ms / 1000,
        "step_s": step_ms // 1000,
        "classes": classes,
        "classes_since_s": hour_ms / 1000,
        "columns": columns([row for row in found if row["begin_ms"] + step_ms <= summed_ms], step_ms),
        "outages": [(each.since_ms, each.until_ms) for each in gaps],
    }


def columns(found: Sequence[dict[str, Any]], step_ms: int) -> dict[str, list[float | None]]:
    """Return the sums as plot columns, with one row of nulls in each gap."""
    names = ("rate", "confidence", "late_s", "slowest_s", "sent", "saved", "entropy", "least", "threshold")

    def values(row: dict[str, Any]) -> dict[str, float | None]:
        frames, checked = row["frames"], row["checked"]
        return {
            "rate": frames / (step_ms / 1000),
            "confidence": row["confidence"] / frames,
            "late_s": row["late_ms"] / frames / 1000,
            "slowest_s": row["slowest_ms"] / 1000,
            "sent": row["frame_bytes"] / (step_ms / 1000),
            "saved": 1 - row["frame_bytes"] / row["raw_bytes"] if row["raw_bytes"] else None,
            "entropy": row["entropy_bits"] / checked if checked else None,
            "least": row["least_entropy_bits"] if row["least_entropy_bits"] < NO_ENTROPY else None,
            "threshold": row["threshold_bits"] / checked if checked else None,
            "flagged": row["flagged"] / checked if checked else None,
            "evidence": row["evidence"],
        }

    rows = ((row["begin_ms"], values(row)) for row in found)
    return plot_columns((*names, "flagged", "evidence"), rows, step_ms)


def plot_columns(
    names: Iterable[str], rows: Iterable[tuple[int, Mapping[str, float | None]]], step_ms: int
) -> dict[str, list[float | None]]:
    """Return rows as columns by name, next to their times `t` in Unix seconds, with one row of nulls in each gap.

    A row is the start of its step in Unix milliseconds and the values by name, which get five significant digits.
    """
    drawn: dict[str, list[float | None]] = {name: [] for name in ("t", *names)}

    def append(at_ms: int, values: Mapping[str, float | None]) -> None:
        for name, column in drawn.items():
            value = values.get(name)
            column.append(at_ms / 1000 if name == "t" else None if value is None else float(f"{value:.5g}"))

    before_ms: int | None = None
    for begin_ms, values in rows:
        if before_ms is not None and begin_ms - before_ms > step_ms:
            append(before_ms + step_ms, {})
        append(begin_ms, values)
        before_ms = begin_ms
    return drawn


def outages(
    before_ms: int | None,
    begins_ms: Sequence[int],
    step_ms: int,
    patience_ms: float,
    last_ms: int | None,
    summed_ms: int,
) -> list[Outage]:
    """Return the gaps that are longer than `patience_ms`, after which the camera is silent, newest first.

    They lie between the minutes (or hours) with captured frames; the first begins at `before_ms`, the end of the last
    frames before these minutes, unless that is None. One more lasts from the end of the last one, `last_ms`, to the
    time up to which frames are summed, `summed_ms`, unless `last_ms` is None.
    """
    gaps = [(before + step_ms, after) for before, after in pairwise(begins_ms)]
    if begins_ms and before_ms is not None:
        gaps.insert(0, (before_ms, begins_ms[0]))
    if last_ms is not None:
        gaps.append((last_ms, summed_ms))
    found = [Outage(since, until) for since, until in gaps if until - since > patience_ms]
    return found[::-1][:_MOST_OUTAGES]


def alerts_of(connection: Connection, camera: str, since_ms: int) -> list[dict[str, Any]]:
    """Return the times of a camera's alerts and its baseline then, newest first, from the recorder's database.

    Backdoor alerts and sightings have a limit each.
    """
    query = (
        select(*alerts.c["alert_id", "raised_ms", "baseline_bits", "threshold_bits", "wanted"])
        .where(alerts.c.camera == camera, alerts.c.raised_ms >= since_ms)
        .order_by(alerts.c.raised_ms.desc())
        .limit(_MOST_ALERTS)
    )
    found = [dict(row) for kind in KINDS for row in connection.execute(query.where(kind)).mappings()]
    return sorted(found, key=lambda each: -each["raised_ms"])
