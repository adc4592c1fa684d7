"""A spool's folder: its path, its owner and an exclusive lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from pathlib import Path
from threading import Lock
from typing import ClassVar, Final

from schemas.errors import StateError

_INSTALL: Final = re.compile(rb"[0-9a-f]{16}")
_READ_BYTES: Final = 2**20
_OFFSETS: Final = 2**63
"""Offsets that a file has."""


def spool_root(state: Path) -> Path:
    """Return the folder of all cameras' spools in a state folder: one folder `site/camera` each."""
    return state / "spool"


def read_ahead(folder: Path) -> None:
    """Read the files of a spool, so that its opening finds them in memory. Unreadable files are passed over."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            with contextlib.suppress(OSError), path.open("rb") as file:
                while file.read(_READ_BYTES):
                    pass


class FolderLock:
    """The exclusive lock of a folder; `StateError` if another process, or this one, already holds the lock.

    The lock is one byte, at the folder's inode number, of a file in the parent folder. A process with ten thousand
    spools therefore holds one open file for all of them. Some file systems give inode numbers of 64 bits: a file's
    offsets have 63.
    """

    _files: ClassVar[dict[tuple[int, int], int]] = {}
    """The open lock file of each parent folder, by device and inode. Closing any descriptor of it would end all of its
    locks (`fcntl(2)`), therefore it stays open until the process ends."""
    _taken: ClassVar[set[tuple[int, int]]] = set()
    """Device and inode of the folders that this process has locked: a process is not blocked by its own locks."""
    _changing: ClassVar[Lock] = Lock()

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            own = folder.stat()
            self._place = own.st_dev, own.st_ino
            with self._changing:
                self._file = self._open(folder.parent)
                self._claim(folder)
        except OSError as error:
            raise StateError(
                f"spool {folder}: expected a folder that can be opened, got {error.strerror}. Correct its rights."
            ) from None

    def _open(self, above: Path) -> int:
        own = above.stat()
        place = own.st_dev, own.st_ino
        held = self._files.get(place)
        file = os.open(above / ".locks", os.O_RDWR | os.O_CREAT, 0o600) if held is None else held
        if held is not None and not _is_at(held, above / ".locks"):
            # The folder was removed and created again, with the same inode number.
            file = os.open(above / ".locks", os.O_RDWR | os.O_CREAT, 0o600)
            os.close(held)
        self._files[place] = file
        return file

    def _claim(self, folder: Path) -> None:
        if self._place in self._taken or not self._lock():
            raise StateError(
                f"spool {folder}: expected one that is not in use, got one of another process. Stop that process."
            )
        self._taken.add(self._place)

    def _lock(self) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._place[1] % _OFFSETS)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return False
        return True

    def release(self) -> None:
        """Release the lock."""
        with self._changing:
            self._taken.discard(self._place)
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._place[1] % _OFFSETS)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def install_id(folder: Path) -> str:
    """Return the random id of this installation, created at the first start. It differs between two devices with one
    camera name."""
    path = folder / "install"
    try:
        known = path.read_bytes()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EIO):  # missing, or unreadable because the disk is damaged
            raise
        known = b""
    if not _INSTALL.fullmatch(known):
        known = secrets.token_hex(8).encode()
        path.write_bytes(known)
    return known.decode()
