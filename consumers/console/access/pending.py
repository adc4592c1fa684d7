"""Logins that have begun at the identity provider, each in a signed cookie of its browser."""

from __future__ import annotations

import hmac
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Final

PENDING_S: Final = 600.0
"""Seconds between the beginning of a login and its end."""
_LONGEST_COOKIE: Final = 2_000
"""Bytes of a cookie with its tag: browsers drop one of more than 4,096."""
_MOST_USED: Final = 10_000
"""Used states that are remembered: the oldest is removed first."""


def _random() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Pending:
    """One login that has begun."""

    then: str
    """Path of the page that the visitor wanted."""
    until_s: float
    state: str = field(default_factory=_random)
    """Comes back with the provider's answer: another site cannot answer in the provider's place."""
    nonce: str = field(default_factory=_random)
    """Comes back in the ID token: a token of another login is rejected."""
    verifier: str = field(default_factory=_random)
    """Proof that a code is redeemed by who requested it (PKCE, RFC 7636)."""


class PendingLogins:
    """Makes and reads the cookies. The server keeps only some used states, so strangers cannot fill its memory."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._key = secrets.token_bytes(32)
        self._used: OrderedDict[str, None] = OrderedDict()

    def begin(self, then: str) -> tuple[Pending, str]:
        """Return a new login and its cookie. A path that makes the cookie too long is replaced by `/`."""
        pending = Pending(then, self._clock_s() + PENDING_S)
        cookie = self._cookie(pending)
        if len(cookie) > _LONGEST_COOKIE:
            pending = replace(pending, then="/")
            cookie = self._cookie(pending)
        return pending, cookie

    def find(self, cookie: str, state: str) -> Pending | None:
        """Return the login of a cookie if the state is its own, None if not, or if it has expired or is used up."""
        body, _, tag = cookie.partition(".")
        if not _equal(tag, self._tag(body)):
            return None
        pending = Pending(**json.loads(urlsafe_b64decode(body)))
        is_valid = pending.state not in self._used and self._clock_s() < pending.until_s
        return pending if is_valid and _equal(state, pending.state) else None

    def use_up(self, pending: Pending) -> None:
        """Let `find` return a login no more."""
        self._used[pending.state] = None
        while len(self._used) > _MOST_USED:
            self._used.popitem(last=False)

    def _cookie(self, pending: Pending) -> str:
        body = urlsafe_b64encode(json.dumps(asdict(pending)).encode()).decode()
        return f"{body}.{self._tag(body)}"

    def _tag(self, body: str) -> str:
        return hmac.digest(self._key, body.encode(errors="replace"), "sha256").hex()


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))
