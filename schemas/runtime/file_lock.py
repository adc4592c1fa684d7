"""Locks for whole processes. The kernel releases a lock when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def lock_file(file: Path, *, wait: bool = False, mode: int = 0o600, shared: bool = False) -> int:
    """Open `file`, or create it with `mode`, lock it and return its descriptor. `os.close` releases the lock.

    `shared` locks exclude only the others, not each other. Raises BlockingIOError if another process, or another
    descriptor of this one, has the lock and `wait` is False, and any other OSError if the file cannot be opened.
    """
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(lock)
        raise
    return lock


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Wait for the lock of a folder and hold it until the block ends. Raises OSError if the folder cannot be opened."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def exclusive(file: Path) -> Iterator[bool]:
    """Provide whether this process alone may write `file`, until the block ends. The lock is a hidden file next to it.

    If the lock cannot be created, the file is not reserved.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_file(file.with_name(f".{file.name}.lock"))
    except OSError as error:  # if the lock cannot be created, neither can the file, which its writer reports
        yield not isinstance(error, BlockingIOError)
        return
    try:
        yield True
    finally:
        os.close(lock)
