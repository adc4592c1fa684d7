"""Small files that another process may read at any moment, and the folders of a user."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError
from schemas.runtime.atomic_file import write_durably, write_text


def write_json(path: Path, document: Mapping[str, Any] | list[Any], *, durably: bool = False) -> None:
    """Write `document` atomically: a reader sees the old file or the new one, never a part.

    With `durably`, it survives a power failure from the return on.
    """
    write = write_durably if durably else write_text
    write(path, json.dumps(document, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in `path`; empty when the file is missing, or is no JSON object."""
    try:
        document = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def user_folder(variable: str, below: str) -> Path:
    """Return the folder `pointillist` in the folder that an XDG variable names; without it, in the folder `below` of
    the user's home.

    Raises ConfigError for a user without a home, such as a container's user that is a number only.
    """
    base = os.environ.get(variable)
    try:
        return (Path(base) if base else Path.home() / below) / "pointillist"
    except RuntimeError:
        raise ConfigError(f"HOME is missing: expected the home folder of this user. Set HOME or {variable}.") from None


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/pointillist`, by default `~/.cache/pointillist`."""
    return user_folder("XDG_CACHE_HOME", ".cache")


def backend_cache() -> Path:
    """Return the folder of the processors' choices of backend; see `ProcessorSettings.backend_cache`."""
    return cache_folder() / "backends"
