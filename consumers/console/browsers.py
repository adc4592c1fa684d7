"""The browsers from which a user has logged in: a cookie that stays after the logout.

It opens nothing. It only gives the browser a count of wrong passwords of its own, so that others who guess that user's
password, from whatever address, cannot lock it out (OWASP, "Slow Down Online Guessing Attacks with Device Cookies").
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import blake2b
from typing import Final

COOKIE: Final = "pointillist-browser"


class Browsers:
    """Marks browsers, under a key that ends with the process, as the counts do."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def mark(self, name: str) -> str:
        """Return a new mark of a browser in which the user `name` has logged in."""
        browser = secrets.token_hex(16)
        return f"{browser}.{self._tag(browser, name)}"

    def known(self, mark: str, name: str) -> str:
        """Return the browser of a mark, empty if the mark is not one of ours for that user."""
        browser, _, tag = mark.partition(".")
        return browser if hmac.compare_digest(tag.encode(), self._tag(browser, name).encode()) else ""

    def _tag(self, browser: str, name: str) -> str:
        return blake2b(f"{browser}\0{name}".encode(errors="replace"), key=self._key, digest_size=16).hexdigest()
