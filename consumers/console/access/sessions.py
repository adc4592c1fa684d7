"""The sessions of browsers, in memory. Each has a token in a cookie and another in every form of its pages."""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2s
from typing import Final

from consumers.console.access.rights import Person, Right, Roles

LONGEST_S: Final = 12 * 3600.0
"""A session ends this long after the login, used or not."""
PROXIED_S: Final = 300.0
"""A stream of a person whom a proxy logs in ends after this time: the browser's next request asks the proxy again."""
MOST: Final = 1_000
"""Maximum sessions at once: the least recently used one ends first."""
MOST_OF_ONE: Final = 32
"""Maximum sessions of one person, whose least recently used one ends first: nobody ends the sessions of others."""

IsCurrent = Callable[[], bool]
"""Returns whether a person may still act: the user or the token has not changed."""


def _always() -> bool:
    return True


@dataclass(slots=True)
class Session:
    """A login of a person, or a single request that brings credentials."""

    person: Person
    since_s: float = 0.0
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    is_current: IsCurrent = _always
    id_token: str = ""
    """The identity provider's token of this login, which its logout needs."""
    subject: str = ""
    """The identity provider's id of the person; empty for other logins."""
    sid: str = ""
    """The identity provider's id of this login; empty if it gives none."""
    endless: bool = False
    """Whether the session lasts as long as the process."""
    by_proxy: bool = False
    """Whether a proxy logs the person in with each request: only the proxy can log the person out."""
    ended: bool = False

    @property
    def mark(self) -> str:
        """A digest of the form token: a page compares it with that of its forms."""
        return blake2s(self.csrf.encode(), digest_size=8).hexdigest()

    @property
    def name(self) -> str:
        """The person's name."""
        return self.person.name

    @property
    def roles(self) -> Roles:
        """The person's roles."""
        return self.person.roles


def _endless(name: str, right: Right) -> Session:
    return Session(Person(name, Roles.parse(right)), endless=True)


class Sessions:
    """The open sessions by their tokens."""

    def __init__(self, owner: str | None = None, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Create the table.

        `owner` is the user who runs a console on loopback without logins: visitors then read, and the owner's link
        makes them an admin.
        """
        self.visitor = None if owner is None else _endless("visitor", Right.VIEWER)
        self.owner = None if owner is None else _endless(owner, Right.ADMIN)
        self._clock_s = clock_s
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._owner_cookie = secrets.token_urlsafe(32)
        self._key = secrets.token_bytes(32)

    def begin(
        self, person: Person, is_current: IsCurrent = _always, *, id_token: str = "", subject: str = "", sid: str = ""
    ) -> str:
        """Open a session and return its token."""
        token, made = secrets.token_urlsafe(32), self.passing(person, is_current)
        made.id_token, made.subject, made.sid = id_token, subject, sid
        self._open[token] = made
        own = [other for other, each in self._open.items() if (each.name, each.subject) == (person.name, subject)]
        for other in own[:-MOST_OF_ONE]:
            self.end(other)
        while len(self._open) > MOST:
            self._open.popitem(last=False)[1].ended = True
        return token

    def begin_owner(self) -> str:
        """Return the token of the owner's session, the same in all browsers."""
        return self._owner_cookie

    def passing(self, person: Person, is_current: IsCurrent = _always) -> Session:
        """Return a session without a token, for one request that brings its credentials."""
        return Session(person, self._clock_s(), is_current=is_current)

    def proxied(self, person: Person) -> Session:
        """Return a session for one request that a proxy has logged in.

        The form token depends on the person alone, because the next request has another session.
        """
        made = self.passing(person)
        made.by_proxy = True
        made.csrf = hmac.digest(self._key, f"{person.name}\0{person.roles}".encode(), "sha256").hex()
        return made

    def find(self, token: str) -> Session | None:
        """Return the session of a token, None if it is unknown or has ended."""
        if self.owner is not None and hmac.compare_digest(token.encode(), self._owner_cookie.encode()):
            return self.owner
        found = self._open.get(token)
        if found is None:
            return None
        if not self.holds(found):
            self.end(token)
            return None
        self._open.move_to_end(token)
        return found

    def holds(self, session: Session) -> bool:
        """Return whether a session is valid: no logout, its person unchanged, and not too old."""
        if session.endless:
            return True
        if session.ended or self._clock_s() - session.since_s >= (PROXIED_S if session.by_proxy else LONGEST_S):
            return False
        return session.is_current()

    def end_of_provider(self, ends: Callable[[str, str], bool]) -> list[Session]:
        """End the sessions of the identity provider's logins that `ends` selects by subject and sid. Return them."""
        tokens = [token for token, each in self._open.items() if each.subject and ends(each.subject, each.sid)]
        return [found for token in tokens if (found := self.end(token)) is not None]

    def end(self, token: str) -> Session | None:
        """End a session and the streams that it has opened. Return it, None if the token is unknown."""
        found = self._open.pop(token, None)
        if found is not None:
            found.ended = True
        return found
