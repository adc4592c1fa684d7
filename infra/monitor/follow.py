"""Counters behind those of a broker or a kernel, continued when the original restarts."""

from __future__ import annotations

from prometheus_client import Counter


class Follower:
    """One counter of ours behind a foreign counter, which may restart.

    Its series begins at the foreign counter's present value: a start at 0 would show all earlier counts as one jump.
    """

    def __init__(self, counter: Counter, *labels: str) -> None:
        self._counter = counter
        self._labels = labels
        self._last = 0.0

    def update(self, value: float) -> None:
        """Update to the foreign counter's `value`. A fall means a restart, and then the whole value is new."""
        self._counter.labels(*self._labels).inc(value - self._last if value >= self._last else value)
        self._last = value
