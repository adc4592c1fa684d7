"""The users of the console: a file of `name:roles:salt:hash` lines, with passwords hashed by scrypt (RFC 7914)."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import scrypt
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
from consumers.console.access.rights import ROLES_FORM, Person, Right, Roles
from schemas.errors import ConfigError

_COST: Final = 2**14
_BLOCKS: Final = 8
_SALT_BYTES: Final = 16
SHORTEST_PASSWORD: Final = 10
LONGEST_PASSWORD: Final = 1_000


@dataclass(frozen=True)
class User(Person):
    """One line of the file."""

    salt: bytes
    digest: bytes

    def line(self) -> str:
        """Return the user as a line of the file."""
        return f"{self.name}:{self.roles}:{self.salt.hex()}:{self.digest.hex()}"


NOBODY: Final = User("", Roles.parse(Right.VIEWER), bytes(_SALT_BYTES), b"")
_ADD: Final = "Add a user by `pointillist user add NAME`"


def _parse(line: str) -> User:
    name, roles, salt, digest = line.split(":")
    return User(name, Roles.parse(roles), bytes.fromhex(salt), bytes.fromhex(digest))


_LINES: Final = LineFormat("users", f"name:roles:salt:hash with roles like {ROLES_FORM}", _ADD, _parse)


def hashed(password: str, salt: bytes) -> bytes:
    """Return the hash: 32 bytes, in about 50 ms and 16 MiB."""
    return scrypt(password.encode(), salt=salt, n=_COST, r=_BLOCKS, p=1, dklen=32)


def read_users(file: Path, *, required: bool = True) -> dict[str, User]:
    """Read the users by name. Raises ConfigError that names the wrong line and repeats no hash, or without users, if
    they are required."""
    users = read_lines(file, _LINES)
    if required and not users:
        raise ConfigError(
            f"{file}: expected at least one user, got none. {_ADD}, or delete the file: without it, a console on "
            "loopback asks for no login."
        )
    return users


def write_user(file: Path, name: str, roles: str, password: str) -> None:
    """Add or change a user. Raises ConfigError for an invalid name, role or password."""
    check_name(name)
    held = check_roles(roles)
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ConfigError(
            f"password: expected {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters, got {len(password)}. Choose "
            "another password."
        )
    salt = secrets.token_bytes(_SALT_BYTES)
    added = User(name, held, salt, hashed(password, salt))
    file.parent.mkdir(parents=True, exist_ok=True)
    with changing(file, _LINES) as known:
        known[name] = added


def remove_user(file: Path, name: str) -> None:
    """Remove a user. Raises ConfigError if the file has no such user."""
    remove_line(file, _LINES, name)


class Users(FollowedLines[User]):
    """The users of a file."""

    def __init__(self, file: Path, *, required: bool = True) -> None:
        """Read the file. Raises the errors of `read_users`."""
        read_users(file, required=required)
        super().__init__(file, _LINES)


def check_password(users: Mapping[str, User], name: str, password: str) -> User | None:
    """Return the user if the password is right. The check takes as long for an unknown name."""
    user = users.get(name, NOBODY)
    right = hmac.compare_digest(hashed(password[:LONGEST_PASSWORD], user.salt), user.digest)
    return user if right and user is not NOBODY else None
