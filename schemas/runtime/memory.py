"""How a role's process handles memory: Python's and the C library's defaults suit programs that come and go."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from typing import Final

THRESHOLDS: Final = (50_000, 20, 50)
"""New objects before a look at the youngest, and looks before one at the next older ones."""
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def collect_seldom() -> None:
    """Look for garbage in circles seldom, and never in what is there now: for a process that has all its imports.

    By default Python looks after every 700 new objects. A role that passes on thousands of messages a second has more
    than that in its hands at any time, and they are in no circle: looking took a tenth of a bridge's time. And all that
    was imported (with torch a million objects) would be gone through again and again, while frames wait. What is in no
    circle is freed at once as ever.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def keep_freed(most_bytes: int) -> bool:
    """Let glibc keep up to so many freed bytes, 32 MiB at most, for the next use; False with another C library.

    For a process that makes and drops large buffers all the time, such as requests of a megabyte: by default their
    pages go back to the system and are taken again, cleared, which took the bridge a twelfth of its time.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_M_TRIM_THRESHOLD, most_bytes) and mallopt(_M_MMAP_THRESHOLD, most_bytes))
    return False
