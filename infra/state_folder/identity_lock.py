"""One lock for the files that name identities: authority, certificates, rights, key generations, keys."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from schemas.errors import StateError
from schemas.runtime.file_lock import lock_file

LOCK_FILE: Final = "identities.lock"
RESTORING: Final = ".restoring"
"""The folder in a state folder that exists until a restore ends; a killed one leaves it behind."""
_threads = threading.RLock()
_held: dict[Path, int] = {}
"""The nesting depth in this process, by folder. Guarded by `_threads`."""


@contextmanager
def changing_identities(state: Path) -> Iterator[None]:
    """Keep other threads and processes from changing the identities of the state folder while the block runs.

    Every read-change-write of `pki/`, `generations.json`, `keys/` and the secrets belongs in such a block. Blocks nest.
    Waits as long as another process holds the lock; the kernel releases it when that process ends. Raises StateError if
    the folder cannot be written, or if its restore has not ended: new identities would take the place of those of the
    backup.
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
            lock = lock_file(state / LOCK_FILE, wait=True)
        except OSError as error:
            raise StateError(
                f"--state: expected a writable folder, got {state}: {error.strerror}. Correct its rights, or choose "
                "another folder."
            ) from None
        _held[state] = 1
        try:
            _check_restored(state)
            yield
        finally:
            del _held[state]
            os.close(lock)


def _check_restored(state: Path) -> None:
    staged = state / RESTORING
    if staged.exists():
        raise StateError(
            f"--state: expected a folder without an unfinished restore, got {staged}. Wait for the restore. If it was "
            f"killed, move the entries of {state} that it restored away, and restore again."
        )
