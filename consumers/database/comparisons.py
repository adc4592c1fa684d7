"""The tables of rollouts: the answers of both models to the same frames, and each rollout with the gate's report.

The monitor writes them. They have no effect on frames, alerts or the audit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, func, select

from consumers.database.engine import insert_or_replace, upsert
from consumers.database.tables import comparisons, rollouts
from consumers.records.batch import clean
from schemas.pointillist_pb2 import Assessment, Comparison, Outcome, Slot

MOST_COMPARISONS: Final = 20_000
"""Rows of comparisons; the oldest are deleted first."""
MOST_ROLLOUTS: Final = 200


def save_comparisons(connection: Connection, found: Sequence[tuple[str, Comparison]], at_ms: int) -> None:
    """Insert comparisons, each with its camera, and delete the oldest beyond the limit. A repeated one is ignored."""
    if not found:
        return
    rows = [
        {
            "camera": camera,
            "boot": each.boot_id,
            "seq": each.seq,
            "begun_ms": each.begun_ms,
            "digest": each.digest,
            "slot": Slot.Name(each.slot).lower(),
            "captured_ms": each.captured_ms,
            "saved_ms": at_ms,
            "live_class": clean(each.live.class_name[:200]),
            "live_confidence": each.live.confidence,
            "candidate_class": clean(each.candidate.class_name[:200]),
            "candidate_confidence": each.candidate.confidence,
            "differs": bool(each.candidate.error) or each.live.class_id != each.candidate.class_id,
            "error": clean(each.candidate.error[:200]),
            "picture": each.picture,
        }
        for camera, each in found
    ]
    connection.execute(upsert(connection.engine, comparisons).on_conflict_do_nothing(), rows)
    excess = (connection.scalar(select(func.count()).select_from(comparisons)) or 0) - MOST_COMPARISONS
    if excess > 0:
        last = select(comparisons.c.saved_ms).order_by(comparisons.c.saved_ms).offset(excess - 1).limit(1)
        connection.execute(delete(comparisons).where(comparisons.c.saved_ms <= last.scalar_subquery()))


def save_rollout(connection: Connection, assessment: Assessment, model_id: str) -> None:
    """Insert or update the record of a rollout."""
    values = {
        "digest": assessment.digest,
        "begun_ms": assessment.begun_ms,
        "model_id": model_id[:500],
        "slot": Slot.Name(assessment.slot).lower(),
        "outcome": Outcome.Name(assessment.outcome).lower(),
        "at_ms": assessment.at_ms,
        "report": assessment.report,
    }
    connection.execute(insert_or_replace(connection.engine, rollouts).values(values))
    kept = select(rollouts.c.begun_ms).order_by(rollouts.c.begun_ms.desc()).limit(MOST_ROLLOUTS)
    connection.execute(delete(rollouts).where(rollouts.c.begun_ms.not_in(kept.scalar_subquery())))


def newest_rollouts(connection: Connection) -> list[dict[str, Any]]:
    """Return the ten newest rollouts, the newest first, each with its parsed `report`."""
    found = connection.execute(select(rollouts).order_by(rollouts.c.begun_ms.desc()).limit(10)).mappings()
    return [{**row, "report": {"pairs": 0, "rules": [], **json.loads(row["report"] or "{}")}} for row in found]


def differences(connection: Connection, begun_ms: int) -> list[dict[str, Any]]:
    """Return the 24 newest frames of a rollout on which the models differ, those with a picture first."""
    query = select(comparisons).where(comparisons.c.begun_ms == begun_ms, comparisons.c.differs)
    pictured = (func.length(comparisons.c.picture) > 0).desc()
    found = connection.execute(query.order_by(pictured, comparisons.c.captured_ms.desc()).limit(24))
    return [dict(row) for row in found.mappings()]
