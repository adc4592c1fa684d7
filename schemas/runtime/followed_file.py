"""Files that are read again when they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar

import structlog

from schemas.errors import error_text

FileVersion: TypeAlias = tuple[int, int, int] | None
UNREAD: Final[FileVersion] = (0, 0, 0)
"""The version of no file."""

T = TypeVar("T")
log = structlog.get_logger()


def file_version(file: Path) -> FileVersion:
    """Return a value that differs after every change of the file; None if there is no file.

    It also differs if the file is replaced: Kubernetes replaces mounted files by links.
    """
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


class FollowedFile(Generic[T]):
    """A file that is read again after each change.

    A file that could not be read is read again by each call of `changed`, because a corrected mode is no new version.
    """

    def __init__(self, file: Path, read: Callable[[Path], T], *, version: FileVersion = UNREAD) -> None:
        """`version` is the version of the file that the caller has already read."""
        self._file = file
        self._read = read
        self._version = version
        self.failure = ""
        """The error of the last read, "" after a successful one."""

    def changed(self) -> T | None:
        """Return the content if the file is not the one that was read last, else None. It costs one call of `stat`.

        An error of `read`, of any type, gives None. It is logged once, until another one occurs or the file is read.
        """
        version = file_version(self._file)
        if version == self._version:
            return None
        try:
            found = self._read(self._file)
        except Exception as error:
            self._version = UNREAD
            if self.failure != (failure := error_text(error)):
                self.failure = failure
                log.error("file_not_read", file=str(self._file), error=failure)
            return None
        self._version, self.failure = version, ""
        return found
