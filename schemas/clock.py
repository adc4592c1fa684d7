"""The clocks in whole milliseconds, for every role."""

from __future__ import annotations

import time


def unix_ms() -> int:
    """Return the Unix time in milliseconds."""
    return time.time_ns() // 10**6


def monotonic_ms() -> int:
    """Return the time of the clock by which ages are measured, in milliseconds."""
    return time.monotonic_ns() // 10**6
