"""Sums of the recorded frames by minute, over all cameras, kept longer than the frames.

The rows of `frames` are bounded in number and bytes. The time that they cover therefore depends on the number of
cameras. Here a minute takes one row for any number of cameras.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Engine, delete, func, select

from consumers.database.engine import PreparedStatement, upsert
from consumers.database.tables import history
from consumers.records.rows import FrameRow
from schemas.messages.frame import Truth
from schemas.pointillist_pb2 import CHECKED, SHED

MINUTE_MS: Final = 60_000
LATEST_MS: Final = 30 * 24 * 3_600_000
"""A capture time earlier than this before the recording is implausible, as is one after it."""


class History:
    """Writes the table `history`, in the transaction that records the frames."""

    def __init__(self, engine: Engine) -> None:
        insertion = upsert(engine, history)
        sums = [column for column in history.columns if column.name not in ("minute_ms", "slowest_ms")]
        changed = {column.name: column + insertion.excluded[column.name] for column in sums}
        most = func.max if engine.dialect.name == "sqlite" else func.greatest
        changed["slowest_ms"] = most(history.c.slowest_ms, insertion.excluded.slowest_ms)
        self._add = PreparedStatement(
            engine, insertion.on_conflict_do_update(index_elements=["minute_ms"], set_=changed)
        )

    def add(self, connection: Connection, rows: Sequence[FrameRow], recorded_ms: int) -> None:
        """Add the new `rows` of one transaction, all recorded at that time."""
        if rows:
            self._add.run(connection, minute_ms=recorded_ms - recorded_ms % MINUTE_MS, **_sums(rows))

    def purge(self, connection: Connection, before_ms: int) -> None:
        """Delete minutes before `before_ms`."""
        connection.execute(delete(history).where(history.c.minute_ms < before_ms))


def _sums(rows: Sequence[FrameRow]) -> dict[str, int]:
    # The clock of a single camera may be wrong by years: its frames count as not late.
    late_ms = [late if 0 <= (late := row.recorded_ms - row.captured_ms) <= LATEST_MS else 0 for row in rows]
    found = {
        "frames": len(rows),
        "frame_bytes": sum([row.frame_bytes for row in rows]),
        "raw_bytes": sum([row.width * row.height * row.channels for row in rows]),
        "late_ms": sum(late_ms),
        "slowest_ms": max(late_ms),
    }
    judged: Counter[str] = Counter()
    for (wire, class_id), count in Counter([(row.truth, row.class_id) for row in rows]).items():
        truth = Truth.from_wire(wire)
        if truth is not None and (truth.attacked or truth.clean):
            kind = "attacked" if truth.attacked else "judged"
            judged[kind] += count
            judged[f"{kind}_correct"] += count * (truth.class_id == class_id)
    probed = Counter([(row.strip, bool(row.flagged)) for row in rows])
    return found | {
        **{name: judged[name] for name in ("judged", "judged_correct", "attacked", "attacked_correct")},
        "checked": probed[CHECKED, False] + probed[CHECKED, True],
        "flagged": probed[CHECKED, True],
        "strip_shed": probed[SHED, False] + probed[SHED, True],
    }


def count_minutes(connection: Connection, since_ms: int, until_ms: int) -> int:
    """Return the number of minutes with frames that began from `since_ms` to before `until_ms`."""
    span = history.c.minute_ms >= since_ms, history.c.minute_ms < until_ms
    return connection.scalar(select(func.count()).select_from(history).where(*span)) or 0


def minutes(connection: Connection, since_ms: int) -> list[dict[str, int]]:
    """Return the minutes that began at `since_ms` or later, oldest first; empty minutes have no entry."""
    rows = connection.execute(select(history).where(history.c.minute_ms >= since_ms).order_by(history.c.minute_ms))
    return [dict(row) for row in rows.mappings()]
