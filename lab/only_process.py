"""A lock that keeps a second process from the same work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ConfigError
from schemas.runtime.file_lock import lock_file


@contextmanager
def only_process(file: Path, what: str) -> Iterator[None]:
    """Hold the lock `file`, made with its folder. Raises ConfigError, which names `what`, if another process holds
    it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = lock_file(file)
    except BlockingIOError:
        raise ConfigError(f"{file}: expected no other {what}, got one that runs. Wait for its end.") from None
    try:
        yield
    finally:
        os.close(lock)
