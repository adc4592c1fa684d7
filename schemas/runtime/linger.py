"""How long the first of a batch waits for others: not at all while the worker idles, longer as work fills its time.

A batch saves work and costs its first item the wait. Where the worker (a device, a database, Kafka) is idle most of the
time there is nothing to save, and what comes while it works is the next batch without any wait. Where it is busy the
wait pays for itself, since the next batch would have had to wait for the worker anyway.
"""

from __future__ import annotations

import math
from typing import Final

MEMORY_S: Final = 0.5
"""Over about so long the busy share is taken: much longer than a batch takes, much shorter than a load lasts."""
IDLE_SHARE: Final = 0.25
"""Up to this busy share nothing waits."""
BUSY_SHARE: Final = 0.75
"""From this busy share on the first of a batch waits as long as it may; in between, in proportion."""


class Linger:
    """Pure bookkeeping, on the clock of the caller: monotonic seconds, which may stand still and never go back.

    Raises `ValueError` for a negative bound.
    """

    def __init__(self, most_s: float, *, adapts: bool = True) -> None:
        """Nothing waits longer than `most_s` seconds; everything does when it does not `adapt`."""
        if most_s < 0:
            raise ValueError(f"expected a linger of 0 s or more, got {most_s}")
        self.most_s = most_s
        self._adapts = adapts
        self._running = 0
        self._share = 0.0
        self._at_s: float | None = None

    def begin(self, now_s: float) -> None:
        """The worker takes a batch; it may have several at a time, which count once."""
        self._pass(now_s)
        self._running += 1

    def end(self, now_s: float) -> None:
        """The worker is done with a batch."""
        self._pass(now_s)
        self._running -= 1

    def busy_share(self, now_s: float) -> float:
        """The share of the last while that the worker was busy, from 0 to 1: its exponentially weighted mean."""
        self._pass(now_s)
        return self._share

    def seconds(self, now_s: float) -> float:
        """How long the first of a batch should wait, from 0 to `most_s`."""
        if not self._adapts:
            return self.most_s
        ramp = (self.busy_share(now_s) - IDLE_SHARE) / (BUSY_SHARE - IDLE_SHARE)
        return self.most_s * min(1.0, max(0.0, ramp))

    def _pass(self, now_s: float) -> None:
        if self._at_s is not None:
            kept = math.exp((self._at_s - now_s) / MEMORY_S)
            self._share = self._share * kept + (1 - kept) * (self._running > 0)
        self._at_s = now_s
