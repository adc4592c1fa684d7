"""One lock for the files that name identities: authority, certificates, rights, key generations, keys."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from schemas.errors import StateError

LOCK_FILE: Final = "identities.lock"
_threads = threading.RLock()
_held: dict[Path, int] = {}
"""The nesting depth in this process, by folder. Guarded by `_threads`."""


@contextmanager
def changing_identities(state: Path) -> Iterator[None]:
    """Keep other threads and processes from changing the identities of the state folder while the block runs.

    Every read-change-write of `pki/`, `generations.json`, `keys/` and the secrets belongs in such a block. Blocks nest.
    Waits as long as another process holds the lock; the kernel releases it when that process ends. Raises StateError if
    the folder cannot be written.
    """
    state = state.resolve()
    with _threads:
        if state in _held:
            _held[state] += 1
            try:
                yield
            finally:
                _held[state] -= 1
            return
        try:
            state.mkdir(parents=True, exist_ok=True)
            lock = os.open(state / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(
                f"--state: expected a writable folder, got {state}: {error.strerror}. Correct its rights, or choose "
                "another folder."
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _held[state] = 1
            try:
                yield
            finally:
                del _held[state]
        finally:
            os.close(lock)
