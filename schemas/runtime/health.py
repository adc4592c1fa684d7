"""The health of a role: the content of `/healthz`."""

from __future__ import annotations

from threading import Lock


class Health:
    """Named conditions of one role; it is healthy if there is at least one and all hold. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._conditions: dict[str, tuple[bool, str]] = {}

    def set(self, condition: str, holds: bool, detail: str = "") -> None:
        """Set whether `condition`, such as "kafka" or "assigned", holds now."""
        with self._lock:
            self._conditions[condition] = (holds, detail)

    def report(self) -> tuple[bool, dict[str, dict[str, object]]]:
        """Return whether the role is healthy, and each condition with its detail."""
        with self._lock:
            conditions = dict(self._conditions)
        well = bool(conditions) and all(holds for holds, _ in conditions.values())
        return well, {name: {"ok": holds, "detail": detail} for name, (holds, detail) in conditions.items()}
