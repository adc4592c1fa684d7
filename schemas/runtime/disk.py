"""What every role asks of the disk it writes to."""

from __future__ import annotations

import errno
import math
import shutil
from pathlib import Path


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def free_bytes(folder: Path) -> float:
    """Bytes free on the disk of `folder`, which need not be there yet; NaN when nobody can tell."""
    try:
        return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
    except OSError:
        return math.nan
