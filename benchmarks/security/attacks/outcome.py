"""The outcome of an attack on a running system."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness.quantile import quantile
from benchmarks.harness.records import rows
from infra.state_folder import Layout
from schemas.identity import CameraId


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attack: the actions, whether it reached its aim, and its cost for the good traffic."""

    what: str
    """The attacker's actions, in one sentence."""
    succeeded: bool
    """True if the attacker reached the aim."""
    lost: int
    """Frames that the audit counts as lost."""
    p99_before_s: float | None = None
    """The good frames' 99th percentile of latency before the attack; None if no good cameras run."""
    p99_during_s: float | None = None
    """The same percentile during the attack."""
    seen: dict[str, Any] = field(default_factory=dict)
    """Counts by which the attack was noticed: alerts, dead letters, refusals."""


def p99_s(layout: Layout, since_ms: int, until_ms: int, but_not: CameraId) -> float | None:
    """Return the 99th percentile of capture-to-record latency, in seconds; None without frames.

    It covers the frames captured in [since_ms, until_ms) of all cameras but one. Frames that were never recorded are
    excluded; the audit counts those.
    """
    query = "select recorded_ms - captured_ms from frames where captured_ms >= ? and captured_ms < ? and camera != ?"
    return quantile([ms / 1000 for (ms,) in rows(layout.database, query, since_ms, until_ms, but_not)], 0.99)
