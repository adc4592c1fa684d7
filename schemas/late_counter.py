"""A counter that `increase()` sees from its first count on."""

from __future__ import annotations

import time
from collections.abc import Iterable
from threading import Lock
from typing import ClassVar, Final

from prometheus_client import Counter
from prometheus_client.samples import Sample

AT_ZERO_S: Final = 15.0
"""Seconds for which a scraped series stays at 0, three scrapes or more."""


class LateCounter(Counter):
    """A counter whose series stay at 0 until `AT_ZERO_S` after their first scrape, and then catch up.

    Rules see increases, not first values, and a role may count long before Prometheus scrapes it. The exemplars of
    counts that are held are dropped.
    """

    _held: float | None = None
    """The counts that no scrape has seen; None if the series counts at once."""
    _scraped_s: float | None = None
    _holding: ClassVar = Lock()

    def _metric_init(self) -> None:
        super()._metric_init()
        if self._is_late():
            self._held = 0.0

    def _is_late(self) -> bool:
        return True

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Increment the counter by `amount`."""
        with self._holding:
            if self._held is None or amount < 0:
                super().inc(amount, exemplar)
            else:
                self._held += amount

    def _child_samples(self) -> Iterable[Sample]:
        with self._holding:
            now_s = time.monotonic()
            self._scraped_s = now_s if self._scraped_s is None else self._scraped_s
            if self._held is not None and now_s - self._scraped_s >= AT_ZERO_S:
                super().inc(self._held)
                self._held = None
        return super()._child_samples()
