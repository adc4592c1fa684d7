"""The sessions of browsers, in memory. Each has a token in a cookie and another in every form of its pages."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from consumers.console.access.users import Right, User

LONGEST_S: Final = 12 * 3600.0
"""A session ends this long after the login, used or not."""
MOST: Final = 1_000
"""Maximum sessions at once: the least recently used one ends first."""


@dataclass(slots=True)
class Session:
    """One login of a user, or one request with a password."""

    user: User
    since_s: float = 0.0
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    ended: bool = False

    @property
    def name(self) -> str:
        """The user's name."""
        return self.user.name

    @property
    def right(self) -> Right:
        """The user's right."""
        return self.user.right


class Sessions:
    """The open sessions by their tokens."""

    def __init__(
        self, users: Callable[[], Mapping[str, User]] | None = None, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Create the table.

        `users` returns the current users. Without it everybody is an admin: the console is then on loopback.
        """
        self.local = Session(User("local", Right.ADMIN, b"", b"")) if users is None else None
        self._users = users
        self._clock_s = clock_s
        self._open: OrderedDict[str, Session] = OrderedDict()

    def begin(self, user: User) -> str:
        """Open a session and return its token."""
        token = secrets.token_urlsafe(32)
        self._open[token] = self.passing(user)
        while len(self._open) > MOST:
            self._open.popitem(last=False)[1].ended = True
        return token

    def passing(self, user: User) -> Session:
        """Return a session without a token, for one request that brings its password."""
        return Session(user, self._clock_s())

    def find(self, token: str) -> Session | None:
        """Return the session of a token, None if it is unknown or has ended."""
        found = self._open.get(token)
        if found is None:
            return None
        if not self.holds(found):
            self.end(token)
            return None
        self._open.move_to_end(token)
        return found

    def holds(self, session: Session) -> bool:
        """Return whether a session is valid: no logout, its user unchanged, not older than `LONGEST_S`."""
        if session is self.local:
            return True
        if session.ended or self._users is None or self._clock_s() - session.since_s >= LONGEST_S:
            return False
        return self._users().get(session.name) == session.user

    def end(self, token: str) -> Session | None:
        """End a session and the streams that it has opened. Return it, None if the token is unknown."""
        found = self._open.pop(token, None)
        if found is not None:
            found.ended = True
        return found
