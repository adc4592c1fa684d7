"""Disk checks for every role that writes files."""

from __future__ import annotations

import errno
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from schemas.errors import StateError

_FULL: Final = re.compile(
    "No space left on device|Disk quota exceeded"
    r"|inline_container\.cc:\d+\] \. unexpected pos|PytorchStreamWriter failed writing"
)
"""Words of safetensors and torch about a full disk. Their errors have no number."""


def is_full(error: BaseException) -> bool:
    """Return whether an error means that the disk, or the user's quota on it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def full_disk_error(folder: Path) -> StateError:
    """Return the error of a full disk under `folder`."""
    return StateError(
        f"{folder}: expected free space on its disk, got a full disk. Delete files, or choose another folder."
    )


@contextmanager
def enough_disk(folder: Path) -> Iterator[None]:
    """Raise StateError in place of any error of a full disk, to which the block writes `folder`."""
    try:
        yield
    except Exception as error:
        if not is_full(error) and not _FULL.search(str(error)):
            raise
        raise full_disk_error(folder) from None


def free_bytes(folder: Path) -> float:
    """Return the bytes free on the disk of `folder`, which need not exist yet; NaN if they cannot be determined."""
    try:
        return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
    except OSError:
        return math.nan
