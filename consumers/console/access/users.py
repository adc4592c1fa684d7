"""The users of the console: a file of `name:role:salt:hash` lines, with passwords hashed by scrypt (RFC 7914)."""

from __future__ import annotations

import fcntl
import hmac
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from hashlib import scrypt
from pathlib import Path
from typing import Final

import structlog

from schemas.errors import ConfigError
from schemas.runtime.atomic_file import replacing
from schemas.runtime.file_version import FileVersion, file_version

_COST: Final = 2**14
_BLOCKS: Final = 8
_SALT_BYTES: Final = 16
SHORTEST_PASSWORD: Final = 10
LONGEST_PASSWORD: Final = 1_000
_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class Right(StrEnum):
    """The rights of a user. Each includes those before it."""

    VIEWER = "viewer"
    """Read all pages."""
    OPERATOR = "operator"
    """Send commands to cameras, decide on alerts, remove cameras."""
    ADMIN = "admin"
    """Publish models and replay dead letters."""

    def covers(self, needed: Right) -> bool:
        """Return whether this right includes the `needed` one."""
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
        """Return the user as a line of the file."""
        return f"{self.name}:{self.right}:{self.salt.hex()}:{self.digest.hex()}"


NOBODY: Final = User("", Right.VIEWER, bytes(_SALT_BYTES), b"")
_ADD: Final = "Add a user by `pointillist user add NAME`"

log = structlog.get_logger()


def hashed(password: str, salt: bytes) -> bytes:
    """Return the hash: 32 bytes, in about 50 ms and 16 MiB."""
    return scrypt(password.encode(), salt=salt, n=_COST, r=_BLOCKS, p=1, dklen=32)


def read_users(file: Path) -> dict[str, User]:
    """Read the users by name. Raises ConfigError that names the wrong line and repeats no hash."""
    users = _read(file)
    if not users:
        raise ConfigError(f"{file}: expected at least one user, got none. {_ADD}.")
    return users


def _read(file: Path) -> dict[str, User]:
    try:
        found = file.stat()
        # A Kubernetes Secret is mounted with another owner and is readable by our group.
        if found.st_mode & (0o077 if found.st_uid == os.getuid() else 0o037):
            raise ConfigError(
                f"{file}: expected a file that only its owner can read, got one open to others. Run chmod 600."
            )
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "a file that is not text"
        raise ConfigError(f"{file}: expected a file of users, got {why}. {_ADD}.") from None
    users = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, right, salt, digest = line.split(":")
            users[name] = User(name, Right(right), bytes.fromhex(salt), bytes.fromhex(digest))
        except ValueError:
            raise ConfigError(f"{file}, line {number}: expected name:viewer|operator|admin:salt:hash") from None
    return users


def write_user(file: Path, name: str, right: Right, password: str) -> None:
    """Add or change a user. Raises ConfigError for an invalid name or password."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name: expected at most 64 letters, digits and . _ @ -, got {name[:80]!r}")
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ConfigError(f"password: expected {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    salt = secrets.token_bytes(_SALT_BYTES)
    added = User(name, right, salt, hashed(password, salt))
    file.parent.mkdir(parents=True, exist_ok=True)
    with _changing(file) as known:
        known[name] = added


def remove_user(file: Path, name: str) -> None:
    """Remove a user. Raises ConfigError if the file has no such user."""
    read_users(file)
    with _changing(file) as known:
        if name not in known:
            raise ConfigError(f"name: expected a user of {file} ({', '.join(known)}), got {name[:80]!r}")
        del known[name]


@contextmanager
def _changing(file: Path) -> Iterator[dict[str, User]]:
    """Yield the users for a change and write them back at the end. Concurrent commands wait for each other."""
    try:
        lock = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{file.parent}: expected a writable folder, got {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = _read(file) if file.exists() else {}
        yield known
        with replacing(file, private=True) as fresh:
            fresh.write_text("".join(f"{user.line()}\n" for user in known.values()))
            fresh.chmod(0o600)
    finally:
        os.close(lock)


class Users:
    """The users of a file, read again after each change of the file.

    While the file is missing or damaged, nobody is a user: a damaged line must not keep a removed user.
    """

    def __init__(self, file: Path) -> None:
        """Read the file. Raises ConfigError if it has no users."""
        self._file = file
        self._version: FileVersion = file_version(file)
        self._known = read_users(file)

    def __call__(self) -> dict[str, User]:
        """Return the current users by name. Costs one `stat` call."""
        now = file_version(self._file)
        if now != self._version:
            self._version = now
            try:
                self._known = _read(self._file)
            except ConfigError as error:
                self._known = {}
                log.error("users_not_read", detail=str(error))
            else:
                log.info("users_read", users=len(self._known))
        return self._known


def check_password(users: Mapping[str, User], name: str, password: str) -> User | None:
    """Return the user if the password is right. The check takes as long for an unknown name."""
    user = users.get(name, NOBODY)
    right = hmac.compare_digest(hashed(password[:LONGEST_PASSWORD], user.salt), user.digest)
    return user if right and user is not NOBODY else None
