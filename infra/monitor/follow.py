"""Counters that somebody else counts: a broker, a kernel. Ours follow them, past their restarts."""

from __future__ import annotations

from prometheus_client import Counter


class Follower:
    """One counter of ours behind one of another's, which may begin anew."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._last = 0.0

    def see(self, value: float) -> None:
        """The other counter stands at `value` now. Where it has fallen it has begun anew, and all of it is new."""
        self._counter.inc(value - self._last if value >= self._last else value)
        self._last = value
