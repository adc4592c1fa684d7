"""A spool's folder: where it lies, whose it is, and that only one process uses it."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

from schemas.errors import StateError


def spool_root(state: Path) -> Path:
    """Where in a state folder the spools of all cameras lie: one folder `site/camera` each."""
    return state / "spool"


def lock_folder(folder: Path) -> int:
    """Take the folder for this process; `StateError` when another has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateError(f"the spool {folder} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StateError(f"the spool {folder} is in use by another process") from None
    return lock


def install_id(folder: Path) -> str:
    """A random name of this installation, made at the first start: two devices with one camera name differ in it."""
    path = folder / "install"
    try:
        known = path.read_text()
    except FileNotFoundError:
        known = ""
    if len(known) != 16:
        known = secrets.token_hex(8)
        path.write_text(known)
    return known
