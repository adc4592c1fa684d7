"""The spool's own clock, by which its frames age."""

from __future__ import annotations

import time
from collections.abc import Callable


class SpoolClock:
    """Milliseconds for which processes have had the spool open, over all of them: `begins_at_ms` by earlier ones.

    The time of day is no measure of age: a device without a battery starts in 1970 and is set forward by decades in the
    middle of an outage. This clock only stands still while no process has the spool open. A frame is therefore at least
    as old as its age on this clock.
    """

    def __init__(self, begins_at_ms: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._begins_at_ms = begins_at_ms
        self._started_s = monotonic()

    def now_ms(self) -> int:
        """Return the clock's time in milliseconds."""
        return self._begins_at_ms + round(1000 * (self._monotonic() - self._started_s))
