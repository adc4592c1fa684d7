"""Logout by the identity provider: the claims of a logout token (OpenID Connect Back-Channel Logout 1.0, 2.6)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc.jwt import JWTClaimsRegistry

from consumers.console.access.login_settings import OpenIdSettings

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_TYPES: Final = (None, "JWT", "logout+jwt")
_LONGEST_S: Final = 3600
"""Seconds from issue to expiry: used tokens are remembered until they expire."""
_SHORTEST_S: Final = 60
"""Seconds for which a logout is remembered at least: a login under way may end in this time."""
_MOST_USED: Final = 10_000


@dataclass(frozen=True)
class LoggedOut:
    """The logins that the provider has ended.

    With `sid`: those of this session id, and those of `subject` without a session id. Otherwise all of `subject`.
    """

    subject: str
    sid: str

    def ends(self, subject: str, sid: str) -> bool:
        """Return whether a login with this subject and this session id has ended."""
        if self.subject and subject != self.subject:
            return False
        return not self.sid or sid == self.sid or (bool(self.subject) and not sid)


@dataclass(frozen=True, slots=True)
class _UsedToken:
    """A logout token that has counted."""

    until_s: float
    number: int
    ended: LoggedOut


class LogoutTokens:
    """Checks the claims of logout tokens, each of which counts once."""

    def __init__(self, settings: OpenIdSettings, now_s: Callable[[], float]) -> None:
        self._settings = settings
        self._now_s = now_s
        self._used: OrderedDict[str, _UsedToken] = OrderedDict()
        self.accepted = 0
        """Number of logouts so far."""

    def use(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> LoggedOut:
        """Return the ended logins. Raises JoseError or ValueError for claims that are no logout of this console."""
        settings, now_s = self._settings, self._now_s()
        JWTClaimsRegistry(
            now=int(now_s),
            leeway=int(settings.leeway_s),
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.client_id},
            iat={"essential": True},
            exp={"essential": True},
            jti={"essential": True},
        ).validate(dict(claims))
        events, token_id = claims.get("events"), claims["jti"]
        subject, sid = claims.get("sub", ""), claims.get("sid", "")
        if header.get("typ") not in _TYPES:
            raise ValueError(f"the type {str(header.get('typ'))[:40]!r}")
        if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
            raise ValueError("no logout event")
        if "nonce" in claims:
            raise ValueError("a nonce, as ID tokens have")
        for name, value in (("sub", subject), ("sid", sid), ("jti", token_id)):
            if not isinstance(value, str):
                raise ValueError(f"{name}: expected a text")
        if not token_id:
            raise ValueError("jti: expected a text, got an empty one")
        if not (subject or sid):
            raise ValueError("sub, sid: expected at least one")
        if claims["exp"] - claims["iat"] > _LONGEST_S:
            raise ValueError(f"more than {_LONGEST_S} s until it expires")
        ended = LoggedOut(subject, sid)
        self._use_up(token_id, max(claims["exp"] + settings.leeway_s, now_s + _SHORTEST_S), now_s, ended)
        return ended

    def has_ended(self, subject: str, sid: str, before: int) -> bool:
        """Return whether one of the logouts after the first `before` has ended a login."""
        for used in reversed(self._used.values()):
            if used.number <= before:
                return False
            if used.ended.ends(subject, sid):
                return True
        return False

    def _use_up(self, token_id: str, until_s: float, now_s: float, ended: LoggedOut) -> None:
        self._used = OrderedDict((each, used) for each, used in self._used.items() if used.until_s >= now_s)
        if token_id in self._used:
            raise ValueError("jti: expected a new one, got a used one")
        self.accepted += 1
        self._used[token_id] = _UsedToken(until_s, self.accepted, ended)
        while len(self._used) > _MOST_USED:
            self._used.popitem(last=False)
