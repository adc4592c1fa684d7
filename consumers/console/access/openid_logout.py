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
_MOST_USED: Final = 10_000


@dataclass(frozen=True)
class LoggedOut:
    """The logins that the provider has ended: those of `sid`, or, without one, all of `subject`."""

    subject: str
    sid: str

    def ends(self, subject: str, sid: str) -> bool:
        """Return whether a login with this subject and this session id has ended."""
        if self.subject and subject != self.subject:
            return False
        return sid == self.sid if self.sid else True


class LogoutTokens:
    """Checks the claims of logout tokens, each of which counts once."""

    def __init__(self, settings: OpenIdSettings, now_s: Callable[[], float]) -> None:
        self._settings = settings
        self._now_s = now_s
        self._used: OrderedDict[str, float] = OrderedDict()

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
        if not all(isinstance(each, str) for each in (subject, sid, token_id)) or not (subject or sid) or not token_id:
            raise ValueError("no text as jti, or none as sub and as sid")
        if claims["exp"] - claims["iat"] > _LONGEST_S:
            raise ValueError(f"more than {_LONGEST_S} s until it expires")
        self._use_up(token_id, claims["exp"] + settings.leeway_s, now_s)
        return LoggedOut(subject, sid)

    def _use_up(self, token_id: str, until_s: float, now_s: float) -> None:
        self._used = OrderedDict((each, end_s) for each, end_s in self._used.items() if end_s >= now_s)
        if token_id in self._used:
            raise ValueError("a used one")
        self._used[token_id] = until_s
        while len(self._used) > _MOST_USED:
            self._used.popitem(last=False)
