"""API tokens: a file of `name:roles:created_by:created:expires:hash` lines, each for one program."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from consumers.console.access.private_lines import (
    FollowedLines,
    LineFormat,
    changing,
    check_name,
    check_roles,
    read_lines,
    remove_line,
)
from consumers.console.access.rights import ROLES_FORM, Person, Roles
from schemas.errors import ConfigError

MOST_DAYS: Final = 366
_DAY_S: Final = 86_400
PREFIX: Final = "pointillist_"
"""Scanners for leaked secrets find a token by its prefix."""


@dataclass(frozen=True)
class Token:
    """One line of the file. The token itself has 256 random bits, so a fast hash of it is enough."""

    name: str
    roles: Roles
    created_by: str
    created_s: int
    expires_s: int
    digest: bytes

    def line(self) -> str:
        """Return the token as a line of the file."""
        return f"{self.name}:{self.roles}:{self.created_by}:{self.created_s}:{self.expires_s}:{self.digest.hex()}"

    @property
    def person(self) -> Person:
        """The author of actions with this token, by its name in the audit log."""
        return Person(f"{self.name} (token of {self.created_by})", self.roles)


def _parse(line: str) -> Token:
    name, roles, created_by, created_s, expires_s, digest = line.split(":")
    return Token(name, Roles.parse(roles), created_by, int(created_s), int(expires_s), bytes.fromhex(digest))


_LINES: Final = LineFormat(
    "tokens",
    f"name:roles:created_by:created:expires:hash with roles like {ROLES_FORM}",
    "Create a token by `pointillist token create NAME`",
    _parse,
)


def read_tokens(file: Path) -> dict[str, Token]:
    """Read the tokens by name, none without a file. Raises ConfigError that names the wrong line."""
    return read_lines(file, _LINES) if file.exists() else {}


def create_token(file: Path, name: str, roles: str, days: int, created_by: str, now_s: float) -> str:
    """Add a token and return it: nothing can show it again. Raises ConfigError for a wrong value or a used name."""
    check_name(name)
    check_name(created_by)
    held = check_roles(roles)
    if not 1 <= days <= MOST_DAYS:
        raise ConfigError(f"days: expected 1 to {MOST_DAYS}, got {days}")
    text = PREFIX + secrets.token_urlsafe(32)
    file.parent.mkdir(parents=True, exist_ok=True)
    with changing(file, _LINES) as known:
        if name in known:
            raise ConfigError(f"name: expected a new one, got {name}, which {file} has. Revoke that token first.")
        known[name] = Token(name, held, created_by, int(now_s), int(now_s) + days * _DAY_S, _digest(text))
    return text


def revoke_token(file: Path, name: str) -> None:
    """Remove a token. Raises ConfigError if the file has no such token."""
    remove_line(file, _LINES, name)


class Tokens(FollowedLines[Token]):
    """The tokens of a file, which need not exist."""

    def __init__(self, file: Path, now_s: Callable[[], float] = time.time) -> None:
        super().__init__(file, _LINES)
        self._now_s = now_s

    def find(self, text: str) -> Token | None:
        """Return the token if it is known and has not expired. The time taken does not depend on its characters."""
        digest, found = _digest(text), None
        for token in self().values():
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found if found is not None and self.holds(found) else None

    def holds(self, entry: Token) -> bool:
        """Return whether a token is neither revoked nor expired."""
        return super().holds(entry) and self._now_s() < entry.expires_s


def _digest(text: str) -> bytes:
    return sha256(text.encode(errors="replace")).digest()
