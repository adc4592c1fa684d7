"""Clocks that a test moves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """A clock in seconds."""

    now_s: float = 0.0

    def __call__(self) -> float:
        """Return the time that the test has set."""
        return self.now_s


@dataclass
class MsClock:
    """A clock in milliseconds."""

    now_ms: int

    def __call__(self) -> int:
        """Return the time that the test has set."""
        return self.now_ms
