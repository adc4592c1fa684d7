"""Who may log in: a file with a line `name:role:salt:hash` for each, passwords hashed by scrypt (RFC 7914)."""

from __future__ import annotations

import hmac
import os
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from hashlib import scrypt
from pathlib import Path
from typing import Final

from schemas.errors import ConfigError
from schemas.runtime.atomic_file import replacing

_COST: Final = 2**14
_BLOCKS: Final = 8
_SALT_BYTES: Final = 16
SHORTEST_PASSWORD: Final = 10
LONGEST_PASSWORD: Final = 1_000
_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class Right(StrEnum):
    """What a user may do; each may do what those before it may."""

    VIEWER = "viewer"
    """Look."""
    OPERATOR = "operator"
    """Tell cameras, say what becomes of alerts, forget cameras."""
    ADMIN = "admin"
    """Models, and dead letters once more."""

    def covers(self, needed: Right) -> bool:
        """Whether who has this right may do what needs the other."""
        order = list(Right)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class User:
    """One line of the file."""

    name: str
    right: Right
    salt: bytes
    digest: bytes

    def line(self) -> str:
        """As it stands in the file."""
        return f"{self.name}:{self.right}:{self.salt.hex()}:{self.digest.hex()}"


NOBODY: Final = User("", Right.VIEWER, bytes(_SALT_BYTES), b"")


def hashed(password: str, salt: bytes) -> bytes:
    """32 bytes, in some 50 ms and 16 MiB."""
    return scrypt(password.encode(), salt=salt, n=_COST, r=_BLOCKS, p=1, dklen=32)


def read_users(file: Path) -> dict[str, User]:
    """The users by name; ConfigError says which line is none, and repeats no hash."""
    try:
        found = file.stat()
        # Of somebody else's file our group may be who reads it: so a Secret of Kubernetes is mounted.
        if found.st_mode & (0o077 if found.st_uid == os.getuid() else 0o037):
            raise ConfigError(f"expected users that only their owner can read, {file} is open to others: chmod 600")
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"expected users in {file}: {why}; `pointillist user NAME` makes it") from None
    users = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, right, salt, digest = line.split(":")
            users[name] = User(name, Right(right), bytes.fromhex(salt), bytes.fromhex(digest))
        except ValueError:
            raise ConfigError(f"{file}, line {number}: expected name:viewer|operator|admin:salt:hash") from None
    if not users:
        raise ConfigError(f"expected at least one user in {file}: `pointillist user NAME` adds one")
    return users


def write_user(file: Path, name: str, right: Right, password: str) -> None:
    """Add a user or change one; ConfigError for a name or a password that cannot be."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"expected a name of at most 64 letters, digits and . _ @ -, got {name[:80]!r}")
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ConfigError(f"expected a password of {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    known = read_users(file) if file.exists() and file.stat().st_size else {}
    salt = secrets.token_bytes(_SALT_BYTES)
    known[name] = User(name, right, salt, hashed(password, salt))
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, private=True) as fresh:
        fresh.write_text("".join(f"{user.line()}\n" for user in known.values()))
        fresh.chmod(0o600)


def check_password(users: dict[str, User], name: str, password: str) -> User | None:
    """The user, if that is his password. One that is unknown takes as long."""
    user = users.get(name, NOBODY)
    right = hmac.compare_digest(hashed(password[:LONGEST_PASSWORD], user.salt), user.digest)
    return user if right and user is not NOBODY else None
