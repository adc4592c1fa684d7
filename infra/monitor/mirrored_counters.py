"""Counters behind those of a broker or a kernel, continued when the original restarts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from prometheus_client import Counter


class MirroredCounter:
    """One counter of ours behind a foreign counter, which may restart.

    Its series begins at the foreign counter's present value: a start at 0 would show all earlier counts as one jump.
    """

    def __init__(self, counter: Counter, *labels: str, restarts: bool = True) -> None:
        """`restarts`: whether a fall of the foreign counter means a restart. Otherwise a lower value is ignored."""
        self._counter = counter
        self._labels = labels
        self._restarts = restarts
        self._last = 0.0

    def update(self, value: float) -> None:
        """Update to the foreign counter's `value`. After a restart the whole value is new."""
        if not self._restarts:
            value = max(value, self._last)
        self._counter.labels(*self._labels).inc(value - self._last if value >= self._last else value)
        self._last = value


class MirroredSum:
    """One counter of ours behind the sum of several foreign counters, which come and go.

    A counter that has gone is no restart of the sum: the others go on from their own last values.
    """

    def __init__(self, counter: Counter, *labels: str) -> None:
        self._counter = counter
        self._labels = labels
        self._parts: dict[Hashable, MirroredCounter] = {}

    def update(self, values: Mapping[Hashable, float]) -> None:
        """Update to the values of the foreign counters that are there now, by name."""
        self._counter.labels(*self._labels)  # without any foreign counter the series shows 0
        known = self._parts
        self._parts = {name: known.get(name) or MirroredCounter(self._counter, *self._labels) for name in values}
        for name, value in values.items():
            self._parts[name].update(value)
