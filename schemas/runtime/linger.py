"""Adaptive linger: the first item of a batch does not wait while the worker idles, and waits longer as its load grows.

A batch saves work, and its first item pays with a wait. If the worker (a device, a database, Kafka) is mostly idle,
there is nothing to save. Items that come while it works form the next batch without any wait. If the worker is busy,
the wait costs nothing: the next batch would have waited for the worker in any case. An owner that pays for each batch
itself also notes the arrivals: then an item waits if others are likely to come in the meantime.
"""

from __future__ import annotations

import math
from typing import Final

MEMORY_S: Final = 0.5
"""Time constant of the busy share, in seconds: much longer than a batch, much shorter than a load."""
IDLE_SHARE: Final = 0.25
"""Busy share up to which nothing waits."""
BUSY_SHARE: Final = 0.75
"""Busy share from which the first item of a batch waits the full linger; in between, the wait is in proportion."""
FEW: Final = 1.5
"""Number of other items expected within the full linger up to which nothing waits for them."""
MANY: Final = 6.0
"""Number from which the first item waits the full linger; in between, the wait is in proportion."""


class Linger:
    """The linger of one worker. Pure bookkeeping on the caller's clock: monotonic seconds.

    Raises `ValueError` for a negative bound.
    """

    def __init__(self, most_s: float, *, adapts: bool = True) -> None:
        """Wait at most `most_s` seconds; always that long unless it `adapts`."""
        if most_s < 0:
            raise ValueError(f"expected a linger of 0 s or more, got {most_s}")
        self.most_s = most_s
        self._adapts = adapts
        self._running = 0
        self._share = 0.0
        self._at_s: float | None = None
        self._per_s = 0.0
        self._arrived_s = 0.0

    def begin(self, now_s: float) -> None:
        """Note that the worker begins a batch; several batches at a time count once."""
        self._pass(now_s)
        self._running += 1

    def end(self, now_s: float) -> None:
        """Note that the worker has ended a batch."""
        self._pass(now_s)
        self._running -= 1

    def arrive(self, now_s: float) -> None:
        """Note an item. Only an owner whose batches wait for likely company calls this."""
        self._per_s = self._rate(now_s) + 1 / MEMORY_S
        self._arrived_s = now_s

    def _rate(self, now_s: float) -> float:
        """Return the items per second that arrived lately: an exponentially weighted mean."""
        return self._per_s * math.exp((self._arrived_s - now_s) / MEMORY_S)

    def busy_share(self, now_s: float) -> float:
        """Return the busy share of the worker, from 0 to 1: an exponentially weighted mean."""
        self._pass(now_s)
        return self._share

    def seconds(self, now_s: float) -> float:
        """Return the linger for the first item of a batch, from 0 to `most_s`."""
        if not self._adapts:
            return self.most_s
        busy = (self.busy_share(now_s) - IDLE_SHARE) / (BUSY_SHARE - IDLE_SHARE)
        company = (self._rate(now_s) * self.most_s - FEW) / (MANY - FEW)
        return self.most_s * min(1.0, max(0.0, busy, company))

    def _pass(self, now_s: float) -> None:
        if self._at_s is not None:
            kept = math.exp((self._at_s - now_s) / MEMORY_S)
            self._share = self._share * kept + (1 - kept) * (self._running > 0)
        self._at_s = now_s
