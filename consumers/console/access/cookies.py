"""The cookies of the console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consumers.console.access.browsers import COOKIE as BROWSER_COOKIE
from consumers.console.access.guesses import KNOWN_S
from consumers.console.access.pending import PENDING_S

COOKIE: Final = "pointillist"
OPENID_COOKIE: Final = "pointillist-openid"


@dataclass(frozen=True)
class Origin:
    """The origin of a request, as far as cookies depend on it."""

    is_secure: bool
    """Whether it is HTTPS."""
    port: str
    """The port in the URL; empty for the default one. Cookies ignore ports, so their names have it."""


def cookie_name(origin: Origin, name: str = COOKIE) -> str:
    """Return the name of a cookie; by HTTPS browsers bind `__Host-` to this very host."""
    return f"{'__Host-' if origin.is_secure else ''}{name}{'-' if origin.port else ''}{origin.port}"


def cookie(token: str, origin: Origin) -> str:
    """Return the header that sets the session cookie; an empty token deletes it."""
    text = _cookie(f"{cookie_name(origin)}={token}; Path=/", secure=origin.is_secure)
    return text + ("" if token else "; Max-Age=0")


def browser_cookie(mark: str, origin: Origin) -> str:
    """Return the header that sets the device cookie of a browser in which a user has logged in."""
    return _cookie(f"{BROWSER_COOKIE}={mark}; Path=/login; Max-Age={KNOWN_S:.0f}", secure=origin.is_secure)


def openid_cookie(text: str, origin: Origin) -> str:
    """Return the header that sets the cookie of a login at the identity provider; an empty text deletes it.

    The provider's answer comes from another site, for which browsers send no strict cookie.
    """
    age_s = PENDING_S if text else 0
    pair = f"{cookie_name(origin, OPENID_COOKIE)}={text}; Path=/; Max-Age={age_s:.0f}"
    return _cookie(pair, secure=origin.is_secure, same_site="Lax")


def _cookie(text: str, *, secure: bool, same_site: str = "Strict") -> str:
    return f"{text}; HttpOnly; SameSite={same_site}{'; Secure' if secure else ''}"
