"""A rate limit: each kind of action at most once in a stated time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from schemas.limits import MAX_CAMERAS

What = TypeVar("What", bound=Hashable)


class Throttle(Generic[What]):
    """The last time of each action. It keeps the latest `remembered` ones, and no sender can fill the memory.

    `too_soon` and `note` are separate: a failed attempt does not start the interval. Use `try_acquire` for an action
    that cannot fail, such as a log line. `early_s` lets an action come that much too soon; the next one is then due as
    if it had come in time, and the mean rate stays at one in `apart_s`.
    """

    def __init__(self, apart_s: float, remembered: int = MAX_CAMERAS, early_s: float = 0.0) -> None:
        self._apart_s = apart_s
        self._early_s = early_s
        self._remembered = remembered
        self._last_s: OrderedDict[What, float] = OrderedDict()

    def too_soon(self, what: What, now_s: float) -> bool:
        """Return whether `what` was done less than `apart_s` before `now_s`, by a monotonic clock."""
        last_s = self._last_s.get(what)
        return last_s is not None and now_s + self._early_s - last_s < self._apart_s

    def try_acquire(self, what: What, now_s: float) -> bool:
        """Return whether `what` may be done at `now_s`, and if it may, note it as done."""
        if self.too_soon(what, now_s):
            return False
        last_s = self._last_s.get(what)
        self.note(what, now_s if last_s is None else max(now_s, last_s + self._apart_s))
        return True

    def note(self, what: What, now_s: float) -> None:
        """Note that `what` was done at `now_s`; the oldest entry is dropped if there are too many."""
        self._last_s[what] = now_s
        self._last_s.move_to_end(what)
        if len(self._last_s) > self._remembered:
            self._last_s.popitem(last=False)
