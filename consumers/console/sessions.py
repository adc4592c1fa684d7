"""Who is logged in: sessions in memory, each with a token that every form of its pages repeats."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from consumers.console.users import Right

IDLE_S: Final = 12 * 3600.0
MOST: Final = 1_000
"""Sessions at once: the one that was used longest ago goes first."""
_TRIES: Final = 10
_TRIES_S: Final = 60.0
"""So many wrong passwords of one address in this time; then its next ones are not looked at."""


@dataclass(slots=True)
class Session:
    """One browser."""

    name: str
    right: Right
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    used_s: float = 0.0


class Sessions:
    """The sessions by their tokens, which only the browsers know."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic, *, logs_in: bool = True) -> None:
        """Where nobody `logs_in` everybody is an admin: only this machine reaches the console then."""
        self.local = None if logs_in else Session("local", Right.ADMIN)
        self._clock_s = clock_s
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def begin(self, name: str, right: Right) -> str:
        """A new session's token."""
        token = secrets.token_urlsafe(32)
        self._open[token] = Session(name, right, used_s=self._clock_s())
        while len(self._open) > MOST:
            self._open.popitem(last=False)
        return token

    def find(self, token: str) -> Session | None:
        """The session of a token; None when there is none, or it was idle for too long."""
        found = self._open.get(token)
        if found is None:
            return None
        now_s = self._clock_s()
        if now_s - found.used_s > IDLE_S:
            del self._open[token]
            return None
        found.used_s = now_s
        self._open.move_to_end(token)
        return found

    def end(self, token: str) -> None:
        """Log out."""
        self._open.pop(token, None)

    def may_try(self, address: str) -> bool:
        """Whether another password from that address is looked at."""
        now_s = self._clock_s()
        recent = [at for at in self._wrong.get(address, ()) if now_s - at < _TRIES_S]
        return len(recent) < _TRIES

    def was_wrong(self, address: str) -> None:
        """A password from that address was wrong."""
        now_s = self._clock_s()
        recent = [at for at in self._wrong.pop(address, []) if now_s - at < _TRIES_S]
        self._wrong[address] = [*recent, now_s]
        while len(self._wrong) > MOST:
            self._wrong.popitem(last=False)
