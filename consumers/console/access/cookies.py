"""The cookies of the console."""

from __future__ import annotations

from typing import Final

from consumers.console.access.browsers import COOKIE as BROWSER_COOKIE
from consumers.console.access.guesses import KNOWN_S
from consumers.console.access.pending import PENDING_S

COOKIE: Final = "pointillist"
OPENID_COOKIE: Final = "pointillist-openid"


def cookie_name(name: str = COOKIE, *, secure: bool) -> str:
    """Return the name of a cookie; by HTTPS browsers bind `__Host-` to this very host."""
    return f"__Host-{name}" if secure else name


def cookie(token: str, *, secure: bool) -> str:
    """Return the header that sets the session cookie; an empty token deletes it."""
    return _cookie(f"{cookie_name(secure=secure)}={token}; Path=/", secure) + ("" if token else "; Max-Age=0")


def browser_cookie(mark: str, *, secure: bool) -> str:
    """Return the header that sets the device cookie of a browser in which a user has logged in."""
    return _cookie(f"{BROWSER_COOKIE}={mark}; Path=/login; Max-Age={KNOWN_S:.0f}", secure)


def openid_cookie(text: str, *, secure: bool) -> str:
    """Return the header that sets the cookie of a login at the identity provider; an empty text deletes it.

    The provider's answer comes from another site, for which browsers send no strict cookie.
    """
    age_s = PENDING_S if text else 0
    pair = f"{cookie_name(OPENID_COOKIE, secure=secure)}={text}; Path=/; Max-Age={age_s:.0f}"
    return _cookie(pair, secure, same_site="Lax")


def _cookie(text: str, secure: bool, same_site: str = "Strict") -> str:
    return f"{text}; HttpOnly; SameSite={same_site}{'; Secure' if secure else ''}"
