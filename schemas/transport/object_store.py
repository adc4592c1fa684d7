"""Folders and object stores by URL, for the roles on servers."""

from __future__ import annotations

from typing import Any

import fsspec  # type: ignore[import-untyped]  # it ships no types

from schemas.errors import ConfigError, first_line


def open_store(name: str, url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a folder or URL, and the path in it.

    Raises ConfigError if fsspec cannot open it. The message begins with `name`, and shows no more of the URL than its
    scheme: the rest may contain a password.
    """
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        scheme, separator, _ = url.partition("://")
        got = f"{scheme}{separator}" if separator else url
        if isinstance(error, ImportError):  # fsspec names the package
            raise ConfigError(
                f"{name}: expected a folder or a URL whose package is installed, got {got}. {first_line(error)}."
            ) from None
        raise ConfigError(f"{name}: expected a folder or a URL that fsspec opens, got {got}. Correct it.") from None
    return system, path
