"""A source for tests whose pictures, end and failure the test controls."""

from __future__ import annotations

import threading

import numpy as np

from producers.sources.source import CapturedFrame
from tests.waiting import PATIENCE_S


class Numbers:
    """A source of `count` pictures that then ends or fails; `gate` releases each picture."""

    kind = "numbers"
    blocking = True
    on_demand = False

    def __init__(self, count: int, live: bool, failure: Exception | None = None) -> None:
        self.live = live
        self.closed = threading.Event()
        self.gate = threading.Semaphore(0)
        self._left = iter(range(count))
        self._failure = failure

    def seek(self, position: int) -> None:
        raise NotImplementedError

    def read(self) -> CapturedFrame | None:
        assert self.gate.acquire(timeout=PATIENCE_S)
        for position in self._left:
            return CapturedFrame(np.zeros((8, 8, 1), np.uint8), position, None)
        if self._failure:
            raise self._failure
        return None

    def close(self) -> None:
        self.closed.set()
