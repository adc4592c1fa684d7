"""The user who runs the console: on loopback, proven by a token in a file that only this user can read."""

from __future__ import annotations

import hmac
import os
import pwd
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from schemas.errors import StateError
from schemas.runtime.atomic_file import replacing
from schemas.runtime.file_lock import lock_file

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
    """The token of one start of the console, and the lock on its file."""

    def __init__(self, file: Path) -> None:
        """Lock the file. StateError if another console holds it, or if it cannot be written."""
        self._text = _PREFIX + secrets.token_urlsafe(32)
        self._file = file
        self._lock: int | None = _locked(file)

    def write(self) -> None:
        """Write the token to the file, for its owner only. StateError if the file cannot be written."""
        try:
            with replacing(self._file, private=True) as fresh:
                fresh.write_text(f"{self._text}\n")
        except OSError as error:
            raise _unwritable(self._file, error) from None

    def close(self) -> None:
        """Let another console write the file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def matches(self, text: str) -> bool:
        """Return whether a text is the token. The time taken does not depend on its characters."""
        return hmac.compare_digest(self._text.encode(), text.encode(errors="replace"))


def remove_token(file: Path) -> None:
    """Remove the token of an earlier start, but not of a console that runs."""
    if not file.exists():
        return
    with suppress(StateError):
        lock = _locked(file)
        try:
            file.unlink(missing_ok=True)
        finally:
            os.close(lock)


def _locked(file: Path) -> int:
    try:
        return lock_file(file.with_name(f"{file.name}.lock"))
    except BlockingIOError:
        raise StateError(f"{file}: expected a file that no other console uses, got one in use. Stop it.") from None
    except OSError as error:
        raise _unwritable(file, error) from None


def _unwritable(file: Path, error: OSError) -> StateError:
    return StateError(f"{file}: expected a writable file, got {error.strerror}. Correct the folder.")


def owner_link(url: str, file: Path) -> str:
    """Return the link that logs the owner in to the console at `url`; `url` itself if there is no readable token."""
    try:
        token = file.read_text().strip()
    except OSError:
        return url
    return f"{url.rstrip('/')}{LINK}?token={quote(token)}"
