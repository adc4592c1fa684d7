"""The CPU time of a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def timed(action: Callable[[], T], clock_ns: Callable[[], int] = time.process_time_ns) -> tuple[T, float]:
    """Return the result of `action` and its seconds: by default CPU time of this process, over all threads.

    `time.thread_time_ns` counts this thread alone.
    """
    before = clock_ns()
    found = action()
    return found, (clock_ns() - before) / 1e9
