"""The frames a second of each role, from the counters that are read with its state."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from consumers.console.data.roles import RoleState

WINDOW_S: Final = 10.0
"""Seconds over which a rate is measured."""


class FrameRates:
    """The rates over the last `WINDOW_S` seconds. A counter that has gone back belongs to a restarted role."""

    def __init__(self) -> None:
        self._counts: dict[str, deque[tuple[float, float]]] = {}

    def add(self, roles: Iterable[RoleState], now_s: float) -> None:
        """Add the present counters; a role without one is forgotten. `now_s` is monotonic."""
        present = {role.name: role.frames for role in roles if role.frames is not None}
        self._counts = {name: self._counts.get(name, deque()) for name in present}
        for name, count in present.items():
            seen = self._counts[name]
            if seen and count < seen[-1][1]:
                seen.clear()
            seen.append((now_s, count))
            while len(seen) > 2 and seen[1][0] <= now_s - WINDOW_S:
                seen.popleft()

    def rates(self) -> dict[str, float]:
        """Return the frames a second of each role with two readings, to a tenth."""
        found = {}
        for name, seen in self._counts.items():
            (begin_s, first), (end_s, last) = seen[0], seen[-1]
            if end_s > begin_s:
                found[name] = round((last - first) / (end_s - begin_s), 1)
        return found
