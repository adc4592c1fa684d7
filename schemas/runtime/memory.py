"""Memory settings of a role's process: Python's and the C library's defaults suit short-lived programs."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from typing import Final

THRESHOLDS: Final = (50_000, 20, 50)
"""Allocations before a collection of the youngest generation, and collections before one of each older generation."""
KEPT_BYTES: Final = 32 * 2**20
"""Freed memory that a process keeps for its next batches: the most that glibc allows."""
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def collect_seldom() -> None:
    """Collect garbage cycles seldom, and never among the present objects. Call it after all imports.

    By default, Python collects after every 700 new objects. A role that forwards thousands of messages a second always
    holds more, and they form no cycles: collections took a tenth of a bridge's time. Collections would also traverse
    all imported objects, a million with torch, while frames wait. Objects outside cycles are still freed at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def keep_freed() -> bool:
    """Let glibc keep up to `KEPT_BYTES` freed bytes for the next use. Return whether it does: other C libraries do not.

    This suits a process that allocates and frees large buffers all the time, such as requests of a megabyte. By default
    their pages return to the system and are cleared again, which took the bridge a twelfth of its time.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES))
    return False


def release_freed() -> None:
    """Collect garbage cycles now and return freed pages to the system, after work that leaves much of both.

    Loading a network is such work: torch's tracing leaves cycles that hold all of its weights.
    """
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
