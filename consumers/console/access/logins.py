"""Logins of users and programs: passwords, sessions, and their lines in the audit log and the metrics."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from starlette.datastructures import Headers

from consumers.console.access.browsers import Browsers
from consumers.console.access.guesses import Attempt, TryLaterError
from consumers.console.access.openid import LoggedIn, OpenIdLogin
from consumers.console.access.owner import OwnerToken, owner_name
from consumers.console.access.passwords import Gone, Passwords
from consumers.console.access.proxy import ProxyLogin
from consumers.console.access.refusal import RefusedLoginError
from consumers.console.access.rights import Person
from consumers.console.access.sessions import LONGEST_S, Session, Sessions
from consumers.console.access.tokens import PREFIX, Tokens
from consumers.console.access.users import User, Users
from consumers.database.console_store import AuditLog
from schemas.errors import error_text

PASSWORD: Final = "password"
WAYS: Final = (PASSWORD, "openid", "proxy", "token", "link")
NO_PROVIDER: Final = "openid is missing: this console has no identity provider"
OUTCOMES: Final = ("accepted", "wrong", "refused", "logout")
_WAY_OF: Final = {"page": PASSWORD, "HTTP Basic": PASSWORD, "OpenID Connect": "openid"}
"""The way in the metric, by that of the audit log where they differ."""
MOST_LINES: Final = 20
"""Maximum audit lines on failed logins in `_LINES_S`. The rest becomes one line with their number."""
_LINES_S: Final = 60.0
_MOST_PROGRAMS: Final = 10_000

log = structlog.get_logger()


class Note(Protocol):
    """A writer of lines of the audit log."""

    def __call__(
        self, who: str, what: str, subject: str, detail: str, outcome: str, /, *, log: AuditLog
    ) -> Awaitable[None]:
        """Write a line of a part of the audit log."""


@dataclass(frozen=True)
class LoginMethods:
    """The login methods of one console."""

    users: Users | None = None
    """Passwords."""
    openid: OpenIdLogin | None = None
    """An identity provider."""
    proxy: ProxyLogin | None = None
    """Headers of a trusted proxy."""
    tokens: Tokens | None = None
    """Tokens of programs."""
    owner: OwnerToken | None = None
    """The link of the user who runs a console on loopback, if people do not log in."""

    @property
    def logs_in(self) -> bool:
        """Whether people log in. Otherwise visitors read."""
        return self.users is not None or self.openid is not None or self.proxy is not None


class Logins:
    """The logins of one console."""

    def __init__(self, login_methods: LoginMethods, note: Note, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Open the logins."""
        self.login_methods = login_methods
        self.sessions = Sessions(None if login_methods.logs_in else owner_name(), clock_s)
        self.browsers = Browsers()
        self.counts: Counter[tuple[str, str]] = Counter()
        """Methods and outcomes of logins since the last reading."""
        self._users = login_methods.users
        self._passwords = Passwords(login_methods.users, clock_s) if login_methods.users is not None else None
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

    async def by_basic(self, attempt: Attempt, password: str, gone: Gone) -> User | None:
        """Return the user of a program's request, None for a wrong password. Raises the errors of `Passwords.check`.

        A program sends its password with each request. Its first request in the length of a session counts as a login.
        """
        user = await self._check(attempt, password, gone, "HTTP Basic", remember=True)
        if user is not None:
            await self._seen(user, attempt, "HTTP Basic")
        return user

    def takes_bearer(self, text: str, peer: str) -> bool:
        """Return whether a bearer is for this console: a proxy may pass on the token of its own login."""
        proxy = self.login_methods.proxy
        return text.startswith(PREFIX) or proxy is None or not proxy.is_proxy(peer)

    async def by_token(self, text: str, address: str) -> Session:
        """Return the session of a request with a token. Raises RefusedLoginError."""
        sessions, owner, tokens = self.sessions, self.login_methods.owner, self.login_methods.tokens
        if sessions.owner is not None and owner is not None and owner.matches(text):
            return sessions.owner
        found = tokens.find(text) if tokens is not None else None
        if tokens is None or found is None:
            await self._failed("wrong", Attempt(address, ""), "token", "wrong, revoked or expired token")
            raise RefusedLoginError("token: expected a valid one, got one that is wrong, revoked or expired")
        await self._seen(found.person, Attempt(address, found.person.name), "token")
        return sessions.passing(found.person, lambda: tokens.holds(found))

    async def by_proxy(self, headers: Headers, peer: str, address: str) -> Session | None:
        """Return the session of a request that the proxy at `peer` has logged in. Raises RefusedLoginError."""
        if self.login_methods.proxy is None:
            return None
        try:
            person = self.login_methods.proxy.person(headers, peer)
            if person is not None:
                self._reject_password_name(person)
        except RefusedLoginError as refusal:
            await self._failed("refused", Attempt(address, ""), "proxy", f"rejected: {refusal}")
            raise
        if person is None:
            return None
        await self._seen(person, Attempt(address, person.name), "proxy")
        return self.sessions.proxied(person)

    async def by_openid(self, answer: Mapping[str, str], cookie: str, address: str) -> LoggedIn | None:
        """Return the person whom the provider has logged in, None without a provider. Raises RefusedLoginError."""
        if self.login_methods.openid is None:
            return None
        try:
            found = await self.login_methods.openid.finish(answer, cookie, address)
            self._reject_password_name(found.person)
        except RefusedLoginError as refusal:
            await self._failed("refused", Attempt(address, ""), "OpenID Connect", f"rejected: {refusal}")
            raise
        await self._accepted(found.person, Attempt(address, ""), "OpenID Connect", f", subject {found.subject[:80]}")
        return found

    async def begin_of_provider(self, found: LoggedIn, address: str) -> str:
        """Begin the session of a login and return its token.

        Raises RefusedLoginError if the provider has ended the login before its session began.
        """
        openid = self.login_methods.openid
        if openid is not None and openid.has_ended(found):
            await self._ended_by_provider(found.person.name, address)
            raise RefusedLoginError("login: the provider has ended it meanwhile. Log in again.")
        return self.sessions.begin(found.person, id_token=found.id_token, subject=found.subject, sid=found.sid)

    async def by_logout_token(self, text: str, address: str) -> None:
        """End the sessions that the provider has ended. Raises RefusedLoginError."""
        if self.login_methods.openid is None:
            raise RefusedLoginError(NO_PROVIDER, 404)
        try:
            found = await self.login_methods.openid.logged_out(text)
        except RefusedLoginError as refusal:
            await self._failed("refused", Attempt(address, ""), "OpenID Connect", f"logout rejected: {refusal}")
            raise
        ended = self.sessions.end_of_provider(found.ends)
        if not ended:
            log.info("logout_matched_no_session", subject=found.subject[:80], sid=found.sid[:80])
        for session in ended:
            await self._ended_by_provider(session.name, address)

    async def _ended_by_provider(self, name: str, address: str) -> None:
        self.counts["openid", "logout"] += 1
        await self._write(name, "logout", address, "OpenID Connect", "logged out by the provider")

    async def by_link(self, text: str, address: str) -> bool:
        """Return whether the owner's link is right."""
        owner, session = self.login_methods.owner, self.sessions.owner
        if owner is None or session is None or not owner.matches(text):
            await self._failed("wrong", Attempt(address, ""), "link", "wrong or old link")
            return False
        await self._accepted(session.person, Attempt(address, ""), "link")
        return True

    def is_current(self, user: User) -> Callable[[], bool]:
        """Return a function that returns whether a user of the file has not changed."""
        users = self._users
        return lambda: users is not None and users.holds(user)

    def _reject_password_name(self, person: Person) -> None:
        if self._users is not None and person.name in self._users():
            raise RefusedLoginError(f"{person.name}: expected a name that no user with a password has", 403)

    async def _seen(self, person: Person, attempt: Attempt, way: str) -> None:
        """Log the first request of a program or a proxy's visitor in the length of a session as a login."""
        key = attempt.visitor[0], f"{way} {person.name}"
        if self._clock_s() < self._programs.get(key, 0.0):
            return
        self._programs.pop(key, None)
        self._programs[key] = self._clock_s() + LONGEST_S
        while len(self._programs) > _MOST_PROGRAMS:
            self._programs.popitem(last=False)
        await self._accepted(person, attempt, way)

    async def log_out(self, session: Session, address: str) -> None:
        """Log that a user ended a session."""
        self.counts["openid" if session.id_token else PASSWORD, "logout"] += 1
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

    async def _accepted(self, user: Person, attempt: Attempt, way: str, more: str = "") -> None:
        self.counts[_WAY_OF.get(way, way), "accepted"] += 1
        await self._write(user.name, "login", attempt.address, f"{way}{more}", "logged in")

    async def _failed(self, outcome: str, attempt: Attempt, way: str, text: str) -> None:
        self.counts[_WAY_OF.get(way, way), outcome] += 1
        await self.sum_up()
        if self._lines >= MOST_LINES:
            self._more += 1
            return
        self._lines += 1
        # An unknown name may be a password in the wrong field.
        who = attempt.name if self._users is not None and attempt.name in self._users() else "unknown"
        await self._write(who, "login", attempt.address, way, text, AuditLog.FAILED_LOGINS)

    async def sum_up(self) -> None:
        """Begin the next minute: log how many failures got no line of their own."""
        if self._clock_s() - self._lines_from_s < _LINES_S:
            return
        more, self._more, self._lines, self._lines_from_s = self._more, 0, 0, self._clock_s()
        if more:
            await self._write("unknown", "login", "several", "", f"{more} more failed logins", AuditLog.FAILED_LOGINS)

    async def _write(
        self, who: str, what: str, subject: str, detail: str, outcome: str, part: AuditLog = AuditLog.LOGINS
    ) -> None:
        try:
            await self._note(who, what, subject, detail, outcome, log=part)
        except Exception as error:  # a full disk must not stop people from reading
            log.error("login_not_noted", error=error_text(error))

    def close(self) -> None:
        """Stop the thread that checks passwords, and release the owner's file."""
        if self._passwords is not None:
            self._passwords.close()
        if self.login_methods.owner is not None:
            self.login_methods.owner.close()
