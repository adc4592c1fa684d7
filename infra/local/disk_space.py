"""Free space on a disk: a process that ends on a full disk has not failed by itself."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Final

from schemas.runtime.disk import free_bytes

LEAST_BYTES: Final = 16 * 2**20
"""Kafka, which writes most, ends before a disk is full to the last byte."""
GRACE_S: Final = 30.0
"""Seconds after a full disk during which a process's end may be its consequence."""


class DiskSpace:
    """The free space on the disk of one folder."""

    def __init__(self, folder: Path, least_bytes: int = LEAST_BYTES, grace_s: float = GRACE_S) -> None:
        self._folder = folder
        self._least_bytes = least_bytes
        self._grace_s = grace_s
        self._full_at_s = -math.inf

    def is_full(self) -> bool:
        """Return whether less than `least_bytes` are free now."""
        full = free_bytes(self._folder) < self._least_bytes
        if full:
            self._full_at_s = time.monotonic()
        return full

    def was_full(self) -> bool:
        """Return whether the disk was full within the last `grace_s`, as far as calls have observed it."""
        return self.is_full() or time.monotonic() - self._full_at_s < self._grace_s
