"""Interrupts of `up`: SIGINT and SIGTERM are counted, and each wait looks at the count."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from schemas.errors import UserError

INTERRUPTED = 130
"""Exit status of a run that was interrupted before its cameras started, or before it had counted their frames."""


class InterruptedStart(UserError):  # noqa: N818  # what happened, not an error
    """The user stopped the run before the cameras started."""

    exit_code = INTERRUPTED


@dataclass
class Interrupts:
    """The number of requests to stop."""

    count: int = 0

    def stop_here(self) -> None:
        """Raise InterruptedStart after a request to stop."""
        if self.count:
            raise InterruptedStart("stopped before the cameras started")

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Count a signal."""
        self.count += 1


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Count SIGINT and SIGTERM instead of raising them while the block runs."""
    counter = Interrupts()
    before = {number: signal.signal(number, counter) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield counter
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
