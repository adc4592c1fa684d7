"""The clock of purges by age: a wall clock that is wrong for a while must not delete what is young."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from schemas.clock import unix_ms

SETTLED_S: Final = 3600.0
"""Time for which the wall clock must agree with the monotonic clock before it counts."""
STEP_MS: Final = 120_000
"""Difference between the two clocks, in milliseconds, from which on the wall clock has been set."""


class SettledClock:
    """The wall clock once it has been in step with the monotonic clock for `SETTLED_S`, or is trusted."""

    def __init__(self, wall_ms: Callable[[], int] = unix_ms, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._wall_ms, self._monotonic_s = wall_ms, monotonic_s
        self._since_s = monotonic_s()
        self._ahead_ms = wall_ms() - 1000 * self._since_s

    def trust(self) -> None:
        """Count the wall clock at once: other evidence shows that it is right. After a step the hour begins again."""
        self._since_s = -math.inf

    def now_ms(self) -> int:
        """Return the Unix time in milliseconds; 0 until the clocks have been in step, so that nothing is old."""
        at_s, wall_ms = self._monotonic_s(), self._wall_ms()
        ahead_ms = wall_ms - 1000 * at_s
        if abs(ahead_ms - self._ahead_ms) > STEP_MS:
            self._since_s, self._ahead_ms = at_s, ahead_ms
        return wall_ms if at_s - self._since_s >= SETTLED_S else 0
