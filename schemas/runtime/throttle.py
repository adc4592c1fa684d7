"""At most one of the same in a stated time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from schemas.limits import CAMERAS_AT_HAND

What = TypeVar("What", bound=Hashable)


class Throttle(Generic[What]):
    """Knows when each `What` was done last: the `remembered` latest of them, so that no sender can fill the memory.

    Asking and noting are two calls, because what fails in between is not done, and the next try must not wait for it.
    What cannot fail, such as a line in the log, is one: `take`.
    """

    def __init__(self, apart_s: float, remembered: int = CAMERAS_AT_HAND) -> None:
        self._apart_s = apart_s
        self._remembered = remembered
        self._last_s: OrderedDict[What, float] = OrderedDict()

    def too_soon(self, what: What, now_s: float) -> bool:
        """Whether `what` was done less than `apart_s` before `now_s`, by a monotonic clock."""
        last_s = self._last_s.get(what)
        return last_s is not None and now_s - last_s < self._apart_s

    def take(self, what: What, now_s: float) -> bool:
        """Whether `what` may be done at `now_s`; then it counts as done."""
        if self.too_soon(what, now_s):
            return False
        self.note(what, now_s)
        return True

    def note(self, what: What, now_s: float) -> None:
        """`what` is done at `now_s`; who was done longest ago is forgotten when there are too many."""
        self._last_s[what] = now_s
        self._last_s.move_to_end(what)
        if len(self._last_s) > self._remembered:
            self._last_s.popitem(last=False)
