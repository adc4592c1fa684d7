"""A lock that keeps a second process from the same work."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ConfigError


@contextmanager
def only_process(file: Path, what: str) -> Iterator[None]:
    """Hold the lock `file`, made with its folder. Raises ConfigError, which names `what`, if another process holds it.

    The kernel releases the lock when the process ends, however it ends.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{file}: expected no other {what}, got one that runs. Wait for its end.") from None
        yield
