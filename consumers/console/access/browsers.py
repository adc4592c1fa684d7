"""Device cookies: they mark the browsers from which a user has logged in, and outlive the logout.

A device cookie grants no access. It gives the browser its own count of wrong passwords. An attacker who guesses that
user's password from other addresses then cannot lock this browser out (OWASP, "Slow Down Online Guessing Attacks with
Device Cookies").
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import blake2b
from typing import Final

COOKIE: Final = "pointillist-browser"


class Browsers:
    """Issues and verifies device cookies. The key ends with the process, like the counts."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def mark(self, name: str) -> str:
        """Return a new device cookie for a browser in which the user `name` has logged in."""
        browser = secrets.token_hex(16)
        return f"{browser}.{self._tag(browser, name)}"

    def known(self, mark: str, name: str) -> str:
        """Return the browser id of a device cookie; empty if we did not issue it for this user."""
        browser, _, tag = mark.partition(".")
        return browser if hmac.compare_digest(tag.encode(), self._tag(browser, name).encode()) else ""

    def _tag(self, browser: str, name: str) -> str:
        return blake2b(f"{browser}\0{name}".encode(errors="replace"), key=self._key, digest_size=16).hexdigest()
