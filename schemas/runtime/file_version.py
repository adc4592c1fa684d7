"""The version of a file, to notice when it changes without reading it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

FileVersion: TypeAlias = tuple[int, int, int] | None


def file_version(file: Path) -> FileVersion:
    """Return a value that differs after every change of the file; None if there is no file.

    It also differs if the file is replaced: Kubernetes replaces mounted files by links.
    """
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
