"""Paths in settings files: relative ones start at the folder of their file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from schemas.errors import ConfigError

_PROTOCOL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def is_path(address: object) -> bool:
    """Return whether an address is the path of a file: no URL or other protocol, no device, no variable in front."""
    return isinstance(address, str) and not _PROTOCOL.match(address) and not address.startswith(("/dev/", "${"))


def place(path: str | Path, folder: Path) -> Path:
    """Return the path relative to `folder`; an absolute path, or one that begins with `~`, stays unchanged."""
    try:
        return folder / Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"path: expected a user with a home folder, got {str(path)!r}. Correct the path.") from None


def place_sources(document: Any, folder: Path) -> Any:
    """Return an unchecked scenario with its sources' paths placed in `folder`; any other value stays unchanged."""
    if not isinstance(document, Mapping):
        return document
    placed = dict(document)
    if isinstance(document.get("defaults"), Mapping):
        placed["defaults"] = _with_source(document["defaults"], folder)
    if isinstance(document.get("cameras"), list):
        placed["cameras"] = [_with_source(group, folder) for group in document["cameras"]]
    return placed


def _with_source(options: Any, folder: Path) -> Any:
    if not isinstance(options, Mapping) or not isinstance(options.get("source"), Mapping):
        return options
    source = dict(options["source"])
    if isinstance(source.get("file"), str):
        source["file"] = str(place(source["file"], folder))
    if is_path(source.get("address")):
        source["address"] = str(place(source["address"], folder))
    login = source.get("login")
    if isinstance(login, Mapping) and isinstance(login.get("file"), str):
        source["login"] = {**login, "file": str(place(login["file"], folder))}
    return {**options, "source": source}
