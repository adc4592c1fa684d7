"""The outcome of an attack on a running system."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
