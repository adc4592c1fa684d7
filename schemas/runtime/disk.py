"""Disk checks for every role that writes files."""

from __future__ import annotations

import errno
import math
import re
import shutil
from pathlib import Path
from typing import Final

_WORDS: Final = re.compile(
    "No space left on device|Disk quota exceeded"
    r"|inline_container\.cc:\d+\] \. unexpected pos|PytorchStreamWriter failed writing"
)
"""Errors of safetensors and torch, which have no number."""


def is_full(error: BaseException) -> bool:
    """Return whether an error means that the disk, or the user's quota on it, is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return _WORDS.search(str(error)) is not None


def free_bytes(folder: Path) -> float:
    """Return the bytes free on the disk of `folder`, which need not exist yet; NaN if they cannot be determined."""
    try:
        return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
    except OSError:
        return math.nan
