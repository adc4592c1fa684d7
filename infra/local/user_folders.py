"""The folders of a user."""

from __future__ import annotations

import os
from pathlib import Path

from schemas.errors import ConfigError


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
