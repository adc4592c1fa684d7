"""A camera's user and password, which its settings name and never hold."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import BaseModel, Field, model_validator

from schemas.errors import SourceError


class LoginPlace(BaseModel, frozen=True, extra="forbid"):
    """The place of a camera's `user:password`: a file or an environment variable, exactly one of them."""

    file: Path | None = None
    """A file with `user:password`, read each time the source is opened."""
    variable: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The name of an environment variable with `user:password`."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.file is None) == (self.variable is None):
            raise ValueError("expected either file or variable, where user:password is")
        if str(self.file) == "-":
            raise ValueError("expected a file, got standard input: the file is read at each opening. Name one.")
        return self

    def read(self) -> tuple[str, str]:
        """Return the current user and password; `SourceError` if they are missing. The error never quotes them."""
        if self.file is not None:
            where = f"the file {self.file}"
            try:
                text = self.file.read_text().strip()
            except OSError as error:
                raise SourceError.of("login", f"expected user:password in {where}: {error.strerror}") from None
            except UnicodeDecodeError:
                raise SourceError.of("login", f"expected user:password in {where}: it is not text") from None
        else:
            where = f"the variable {self.variable}"
            text = os.environ.get(self.variable or "", "").strip()
        user, colon, password = text.partition(":")
        if not colon or not user or "\n" in text:
            raise SourceError.of(
                "login", f"expected user:password in {where}, got {'another form' if text else 'none'}"
            )
        return user, password


_END: Final = re.compile(r"[/?#]")
"""Characters that end the authority of an address (RFC 3986, 3.2)."""


def has_login(address: str) -> bool:
    """Return whether an address contains a user."""
    return "@" in _END.split(address.partition("://")[2], maxsplit=1)[0]


def with_login(address: str, user: str, password: str) -> str:
    """Return the address with user and password, percent-encoded by RFC 3986 (3.2.1)."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}"))
