"""The user who runs the console: on loopback, proven by a token in a file that only this user can read."""

from __future__ import annotations

import hmac
import os
import pwd
import re
import secrets
from pathlib import Path
from typing import Final
from urllib.parse import quote

from schemas.errors import StateError
from schemas.runtime.atomic_file import replacing

LINK: Final = "/login/link"
"""Path of the link that logs the owner in."""
_PREFIX: Final = "pointillist_owner_"


def owner_name() -> str:
    """Return the name of the user who runs this process, for the audit log."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers run with numbers that no file names
        name = str(os.getuid())
    return re.sub(r"[^A-Za-z0-9._@-]", "_", name)[:64]


class OwnerToken:
    """The token of one start of the console."""

    def __init__(self, file: Path) -> None:
        """Write a new token to the file, for its owner only. StateError if the file cannot be written."""
        self._text = _PREFIX + secrets.token_urlsafe(32)
        try:
            with replacing(file, private=True) as fresh:
                fresh.write_text(f"{self._text}\n")
        except OSError as error:
            raise StateError(f"{file}: expected a writable file, got {error.strerror}. Correct the folder.") from None

    def matches(self, text: str) -> bool:
        """Return whether a text is the token. The time taken does not depend on its characters."""
        return hmac.compare_digest(self._text.encode(), text.encode(errors="replace"))


def owner_link(url: str, file: Path) -> str:
    """Return the link that logs the owner in to the console at `url`; `url` itself if there is no readable token."""
    try:
        token = file.read_text().strip()
    except OSError:
        return url
    return f"{url.rstrip('/')}{LINK}?token={quote(token)}"
