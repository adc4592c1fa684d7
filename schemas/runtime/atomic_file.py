"""Files that are replaced in one step, for every role."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

UNFINISHED: Final = ".new"
"""Suffix of files that a killed process left unfinished; their names begin with a dot. The owner of the folder may
remove them.
"""


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, which replaces `path` if the block ends without an error.

    A reader of `path`, at any time or after a kill, finds the old file or the new one, never a part. After an error the
    old one stays. Writers in several processes and threads do not disturb each other. An existing file keeps its mode;
    with `private` only the owner may read it, from the first byte on.

    The folder must exist. Nothing is synced to the disk: after a power failure there may be either file, or an empty
    one. Raises OSError.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}{UNFINISHED}")
    try:
        # A killed process of this number may have left one. In a folder of all users, another user may have made one.
        fresh.unlink(missing_ok=True)
        # The file is created here, not by the caller: at no moment may others read it.
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666))
        if not private and path.exists():
            shutil.copymode(path, fresh)
        yield fresh
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write `text` to `path` as `replacing` does, in a folder that is created if it is missing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, private=private) as fresh:
        fresh.write_text(text)


def write_durably(path: Path, text: str, *, private: bool = False) -> None:
    """Write `text` as `write_text` does, and return when it survives a power failure. Raises OSError."""
    changed = {path.parent, *(folder.parent for folder in path.parents if not folder.exists())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, private=private) as fresh:
        fresh.write_text(text)
        sync(fresh)
    for folder in changed:
        sync(folder)


def sync(path: Path) -> None:
    """Write a file's content, or the entries of a folder, to the disk. Raises OSError."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems have no sync for folders
            raise
    finally:
        os.close(opened)


class _Tried(Exception):  # noqa: N818  # no error: it ends a trial
    pass


def try_replacing(path: Path, size: int) -> None:
    """Raise OSError if `replacing` could not write `size` bytes to a private file at `path`. Nothing is left behind."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    with suppress(_Tried), replacing(path, private=True) as fresh:
        fresh.write_bytes(bytes(size))
        raise _Tried
