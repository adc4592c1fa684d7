"""Counters that somebody else counts: a broker, a kernel. Ours follow them, past their restarts."""

from __future__ import annotations

from prometheus_client import Counter


class Follower:
    """One counter of ours behind one of another's, which may begin anew.

    Its series begins where the other stands: from 0 on, all of that would look as if it had happened at once.
    """

    def __init__(self, counter: Counter, *labels: str) -> None:
        self._counter = counter
        self._labels = labels
        self._last = 0.0

    def see(self, value: float) -> None:
        """The other counter stands at `value` now. Where it has fallen it has begun anew, and all of it is new."""
        self._counter.labels(*self._labels).inc(value - self._last if value >= self._last else value)
        self._last = value
