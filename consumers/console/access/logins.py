"""Logins of users and programs: passwords, sessions, and their lines in the audit log and the metrics."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from consumers.console.access.browsers import Browsers
from consumers.console.access.guesses import Attempt, TryLaterError
from consumers.console.access.passwords import Gone, Passwords
from consumers.console.access.sessions import LONGEST_S, Session, Sessions
from consumers.console.access.users import User, Users

OUTCOMES: Final = ("accepted", "wrong", "refused", "logout")
MOST_LINES: Final = 20
"""Maximum audit lines on wrong and refused passwords in `_LINES_S`. The rest becomes one line with their number."""
_LINES_S: Final = 60.0
_MOST_PROGRAMS: Final = 10_000

Note = Callable[[str, str, str, str, str], Awaitable[None]]
"""Writes a line of the audit log: user, action, subject, detail, outcome."""

log = structlog.get_logger()


class Logins:
    """The logins of one console."""

    def __init__(self, users: Users | None, note: Note, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Open the logins. Without `users`, nobody can log in."""
        self.sessions = Sessions(users, clock_s)
        self.browsers = Browsers()
        self.counts: Counter[str] = Counter()
        """Login outcomes since the last reading."""
        self._users = users
        self._passwords = Passwords(users, clock_s) if users is not None else None
        self._note = note
        self._clock_s = clock_s
        self._programs: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._lines = 0
        self._more = 0
        self._lines_from_s = clock_s()

    async def by_form(self, attempt: Attempt, password: str, gone: Gone) -> User | None:
        """Return the user who logs in at the page, None for a wrong password.

        Raises the errors of `Passwords.check`.
        """
        user = await self._check(attempt, password, gone, "page")
        if user is not None:
            await self._accepted(user, attempt, "page")
        return user

    async def by_header(self, attempt: Attempt, password: str, gone: Gone) -> User | None:
        """Return the user of a program's request, None for a wrong password. Raises the errors of `Passwords.check`.

        A program sends its password with each request. Its first request in the length of a session counts as a login.
        """
        user = await self._check(attempt, password, gone, "HTTP Basic", remember=True)
        if user is not None and self._clock_s() >= self._programs.get(attempt.visitor, 0.0):
            self._programs.pop(attempt.visitor, None)
            self._programs[attempt.visitor] = self._clock_s() + LONGEST_S
            while len(self._programs) > _MOST_PROGRAMS:
                self._programs.popitem(last=False)
            await self._accepted(user, attempt, "HTTP Basic")
        return user

    async def log_out(self, session: Session, address: str) -> None:
        """Log that a user ended a session."""
        self.counts["logout"] += 1
        await self._write(session.name, "logout", address, "page", "logged out")

    async def _check(
        self, attempt: Attempt, password: str, gone: Gone, way: str, *, remember: bool = False
    ) -> User | None:
        if self._passwords is None:
            return None
        try:
            user = await self._passwords.check(attempt, password, gone, remember=remember)
        except TryLaterError as refusal:
            await self._failed("refused", attempt, way, f"rejected: too many attempts, wait {refusal.after_s} s")
            raise
        if user is None:
            await self._failed("wrong", attempt, way, "wrong password")
        return user

    async def _accepted(self, user: User, attempt: Attempt, way: str) -> None:
        self.counts["accepted"] += 1
        await self._write(user.name, "login", attempt.address, way, "logged in")

    async def _failed(self, outcome: str, attempt: Attempt, way: str, text: str) -> None:
        self.counts[outcome] += 1
        await self.sum_up()
        if self._lines >= MOST_LINES:
            self._more += 1
            return
        self._lines += 1
        # An unknown name may be a password in the wrong field.
        who = attempt.name if self._users is not None and attempt.name in self._users() else "unknown"
        await self._write(who, "login", attempt.address, way, text)

    async def sum_up(self) -> None:
        """Begin the next minute: log how many failures got no line of their own."""
        if self._clock_s() - self._lines_from_s < _LINES_S:
            return
        more, self._more, self._lines, self._lines_from_s = self._more, 0, 0, self._clock_s()
        if more:
            await self._write("unknown", "login", "several", "", f"{more} more wrong or rejected passwords")

    async def _write(self, who: str, what: str, subject: str, detail: str, outcome: str) -> None:
        try:
            await self._note(who, what, subject, detail, outcome)
        except Exception as error:  # a full disk must not stop people from reading
            log.error("login_not_noted", error=str(error)[:200] or type(error).__name__)

    def close(self) -> None:
        """Stop the thread that checks passwords."""
        if self._passwords is not None:
            self._passwords.close()
