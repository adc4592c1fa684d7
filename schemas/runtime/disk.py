"""Disk checks for every role that writes files."""

from __future__ import annotations

import errno
import math
import shutil
from pathlib import Path

from schemas.errors import StateError


def is_full(error: BaseException) -> bool:
    """Return whether an error means that the disk, or the user's quota on it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def of_full_disk(folder: Path) -> StateError:
    """Return the error of a full disk under `folder`."""
    return StateError(
        f"{folder}: expected free space on its disk, got a full disk. Delete files, or choose another folder."
    )


def free_bytes(folder: Path) -> float:
    """Return the bytes free on the disk of `folder`, which need not exist yet; NaN if they cannot be determined."""
    try:
        return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
    except OSError:
        return math.nan
