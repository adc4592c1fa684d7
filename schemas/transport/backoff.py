"""The one retry policy: delays that double from retry to retry, with jitter, up to a longest one."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from schemas.waiting import wait_at_most

FIRST_S: Final = 0.1
LONGEST_S: Final = 1.0
"""First and longest delay between two tries to reach a server, unless a caller has others."""


class Backoff:
    """The delays of one retry loop.

    A delay is drawn evenly from the upper half of its bound, so that clients that failed together do not return
    together. The bound begins at `first_s` and doubles up to `longest_s`.
    """

    def __init__(self, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._bound_s = first_s
        self.failures = 0
        """Delays since the last success."""

    def next_s(self) -> float:
        """Return the delay before the next try, in seconds, for a loop that schedules it itself."""
        bound_s = self._bound_s
        self._bound_s = min(2 * bound_s, self._longest_s)
        self.failures += 1
        return random.uniform(bound_s / 2, bound_s)

    async def wait(self, stop: asyncio.Event | None = None) -> bool:
        """Wait before the next try; return true as soon as `stop` is set, else false after the delay."""
        delay_s = self.next_s()
        if stop is None:
            await asyncio.sleep(delay_s)
            return False
        return await wait_at_most(stop, delay_s)

    def reset(self, first_s: float | None = None) -> None:
        """Begin again with the shortest delay after a success, or once with `first_s`, which may exceed the longest."""
        self._bound_s = self._first_s if first_s is None else first_s
        self.failures = 0
