r"""The limit on password guesses: an attempt counts from its start, and each one after the first few waits longer.

Three counters apply. With them, one attacker can lock out neither a shared address nor the user whose password is
guessed:

- A visitor's attempts at one name. The visitor is an address, or a browser in which that user has logged in before.
- All attempts of an address, for any name.
- All attempts at a name, from any address.

Only the first counter applies to a visitor who has given the right password before.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from consumers.console.access.connections import network_of

FORGET_S: Final = 900.0
"""A count expires if nothing was added to it for this many seconds."""
KNOWN_S: Final = 30 * 86_400.0
"""A visitor is known for this many seconds after the last right password."""
MOST: Final = 10_000
"""Maximum number of entries of one table: the oldest is removed first."""
_FIRST_S: Final = 1.0
_LONGEST_NAME: Final = 65
"""Characters of a name that count: names of users have at most 64, and those of strangers stay in memory."""


class TryLaterError(Exception):
    """Too many attempts: no password is checked now."""

    def __init__(self, after_s: float) -> None:
        super().__init__(f"password: too many attempts. Try again in {after_s:.0f} s.")
        self.after_s = max(1, math.ceil(after_s))


@dataclass(slots=True)
class _Count:
    wrong: int = 0
    last_s: float = 0.0
    next_s: float = 0.0
    """Time before which no further attempt may begin."""


class Delays:
    """Counts of wrong passwords, each with the delay before its next attempt: 1, 2, 4, … seconds after `free`."""

    def __init__(self, free: int, longest_s: float) -> None:
        self._free = free
        self._longest_s = longest_s
        self._counts: OrderedDict[Hashable, _Count] = OrderedDict()

    def wait_s(self, key: Hashable, now_s: float) -> float:
        """Return the seconds until an attempt may begin, 0 if it may begin now."""
        found = self._counts.get(key)
        return 0.0 if found is None else max(0.0, found.next_s - now_s)

    def add(self, key: Hashable, now_s: float) -> None:
        """Count an attempt at its start."""
        found = self._counts.pop(key, None)
        if found is None or now_s - found.last_s > FORGET_S:
            found = _Count()
        found.wrong += 1
        found.last_s = now_s
        over = found.wrong - self._free
        found.next_s = now_s + min(self._longest_s, _FIRST_S * 2.0 ** min(over, 30)) if over >= 0 else 0.0
        self._counts[key] = found
        while len(self._counts) > MOST:
            self._counts.popitem(last=False)

    def refund(self, key: Hashable) -> None:
        """Uncount an attempt that was right or was never checked."""
        found = self._counts.get(key)
        if found is None:
            return
        found.wrong -= 1
        found.next_s = found.last_s if found.wrong >= self._free else 0.0
        if found.wrong <= 0:
            del self._counts[key]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One password that a visitor gives for a name."""

    address: str
    name: str
    browser: str = ""
    """Device id of the browser if this user has logged in from it before; see `consumers.console.access.browsers`."""

    @property
    def counted_name(self) -> str:
        """The name under which the attempt counts."""
        return self.name[:_LONGEST_NAME]

    @property
    def visitor(self) -> tuple[str, str]:
        """The visitor and the name."""
        return (f"browser {self.browser}" if self.browser else network_of(self.address)), self.counted_name


class Guesses:
    """The attempts of all visitors."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._visitors = Delays(5, 60.0)
        self._addresses = Delays(20, 30.0)
        self._names = Delays(20, 30.0)
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()

    def _counted(self, attempt: Attempt) -> list[tuple[Delays, Hashable]]:
        own: list[tuple[Delays, Hashable]] = [(self._visitors, attempt.visitor)]
        if attempt.browser or self._clock_s() < self._known.get(attempt.visitor, -math.inf):
            return own
        return [*own, (self._addresses, network_of(attempt.address)), (self._names, attempt.counted_name)]

    def begin(self, attempt: Attempt) -> Callable[[], None]:
        """Count an attempt and return a function that uncounts it. Raises TryLaterError if it may not begin yet."""
        self.check(attempt)
        now_s, counted = self._clock_s(), self._counted(attempt)
        for delays, key in counted:
            delays.add(key, now_s)

        def refund() -> None:
            for delays, key in counted:
                delays.refund(key)

        return refund

    def check(self, attempt: Attempt) -> None:
        """Raise TryLaterError if an attempt may not begin yet."""
        now_s = self._clock_s()
        wait_s = max(delays.wait_s(key, now_s) for delays, key in self._counted(attempt))
        if wait_s > 0:
            raise TryLaterError(wait_s)

    def record_success(self, attempt: Attempt) -> None:
        """Record a visitor who gave the right password."""
        self._known.pop(attempt.visitor, None)
        self._known[attempt.visitor] = self._clock_s() + KNOWN_S
        while len(self._known) > MOST:
            self._known.popitem(last=False)
