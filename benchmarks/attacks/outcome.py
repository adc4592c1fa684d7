"""What became of an attack on a running system."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attack: what was done, whether it reached its aim, and what it cost the good traffic beside it."""

    what: str
    """What the attacker did, in one sentence."""
    succeeded: bool
    """Whether the attacker reached his aim."""
    lost: int
    """Frames that the audit calls lost."""
    p99_before_s: float | None = None
    """99 % of the good frames were recorded so fast before the attack; None where nothing runs beside it."""
    p99_during_s: float | None = None
    """The same while it lasted."""
    seen: dict[str, Any] = field(default_factory=dict)
    """Counts that show how it was noticed: alerts, dead letters, refusals."""
