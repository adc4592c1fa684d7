"""A state folder that other users of the machine cannot read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from schemas.errors import StateError

_OWNER: Final = 0o700


@contextmanager
def private_folder(folder: Path) -> Iterator[None]:
    """Close `folder` to other users, even one that was open before, and every file made in the block.

    The files in it are pictures, verdicts, logs and keys. StateError if the folder cannot be made or closed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(_OWNER)
        for entry in folder.iterdir():
            if not entry.is_symlink():
                entry.chmod(entry.stat().st_mode & _OWNER)
    except OSError as error:
        raise StateError(f"state: expected a writable folder, got {folder}: {error}. Choose another folder.") from error
    before = os.umask(0o777 & ~_OWNER)
    try:
        yield
    finally:
        os.umask(before)
