"""Files of one entry a line that only their owner can read: users and tokens."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import structlog

from consumers.console.access.rights import ROLES_FORM, Roles
from schemas.errors import ConfigError
from schemas.runtime.atomic_file import write_durably
from schemas.runtime.file_lock import locked_folder
from schemas.runtime.followed_file import FollowedFile, file_version

NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")
"""Names of users and tokens."""

log = structlog.get_logger()


class Entry(Protocol):
    """One line of the file."""

    @property
    def name(self) -> str:
        """The name, unique in the file."""

    def line(self) -> str:
        """Return the entry as a line."""


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True)
class LineFormat(Generic[E]):
    """The content of such a file."""

    noun: str
    """Name of all entries, for error messages."""
    form: str
    """Form of a line, for error messages."""
    advice: str
    """Command that adds an entry."""
    parse: Callable[[str], E]
    """Reads one line. Raises ValueError."""


def check_name(name: str) -> None:
    """Raise ConfigError for a name that no line can hold."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"name: expected at most 64 letters, digits and . _ @ -, got {name[:80]!r}")


def check_roles(text: str) -> Roles:
    """Return the roles in a text. Raises ConfigError for a text that is none."""
    try:
        return Roles.parse(text)
    except ValueError as error:
        raise ConfigError(f"role: expected {ROLES_FORM}, got {text[:80]!r}: {error}. Correct it.") from None


def read_lines(file: Path, kind: LineFormat[E]) -> dict[str, E]:
    """Read the entries by name. Raises ConfigError that names the wrong line and repeats no hash."""
    try:
        found = file.stat()
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # A Kubernetes Secret is mounted with another owner and is readable by our group.
        if found.st_mode & (0o077 if found.st_uid == os.getuid() else 0o037):
            raise ConfigError(
                f"{file}: expected a file that only its owner can read, got one open to others. Run chmod 600."
            )
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "a file that is not text"
        raise ConfigError(f"{file}: expected a file of {kind.noun}, got {why}. {kind.advice}.") from None
    entries = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            entry = kind.parse(line)
        except ValueError:
            raise ConfigError(f"{file}, line {number}: expected {kind.form}") from None
        entries[entry.name] = entry
    return entries


@contextmanager
def changing(file: Path, kind: LineFormat[E]) -> Iterator[dict[str, E]]:
    """Yield the entries for a change and write them back at the end. Concurrent commands wait for each other."""
    with ExitStack() as held:
        try:
            held.enter_context(locked_folder(file.parent))
        except OSError as error:
            raise ConfigError(f"{file.parent}: expected a writable folder, got {error.strerror}") from None
        known = read_lines(file, kind) if file.exists() else {}
        yield known
        try:
            write_durably(file, "".join(f"{entry.line()}\n" for entry in known.values()), private=True)
        except OSError as error:
            raise ConfigError(f"{file}: expected a writable file, got {error.strerror}") from None


def remove_line(file: Path, kind: LineFormat[E], name: str) -> None:
    """Remove an entry. Raises ConfigError if the file has no such entry."""
    read_lines(file, kind)
    with changing(file, kind) as known:
        if name not in known:
            raise ConfigError(f"name: expected one of {file} ({', '.join(known)}), got {name[:80]!r}")
        del known[name]


class FollowedLines(Generic[E]):
    """The entries of a file, read again after each change of the file.

    While the file is missing or damaged there are none: a damaged line must not keep a removed entry.
    """

    def __init__(self, file: Path, kind: LineFormat[E]) -> None:
        """Read the file if it exists. Raises ConfigError if it is damaged."""
        version = file_version(file)
        self._known = read_lines(file, kind) if file.exists() else {}
        self._file = file
        self._followed = FollowedFile(file, lambda file: read_lines(file, kind), version=version)

    def __call__(self) -> dict[str, E]:
        """Return the current entries by name. Costs one `stat` call."""
        changed = self._followed.changed()
        if changed is not None:
            self._known = changed
            log.info("logins_read", file=str(self._file), entries=len(changed))
        elif self._followed.failure:
            self._known = {}
        return self._known

    def holds(self, entry: E) -> bool:
        """Return whether the file still has exactly this entry."""
        return self().get(entry.name) == entry
