"""Small JSON files that another process may read at any moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from schemas.errors import StateError
from schemas.runtime.atomic_file import write_durably, write_text

Name = TypeVar("Name")
Value = TypeVar("Value")


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


def read_object(
    path: Path, form: str, parse: Callable[[dict[str, Any]], dict[Name, Value]], remedy: str = "Restore the file."
) -> dict[Name, Value]:
    """Return the `parse`d object in `path`; empty when the file is missing.

    Raises StateError, with the expected `form` and the `remedy`, for a file without a JSON object and for one that
    `parse` rejects by a ValueError.
    """
    try:
        document = json.loads(path.read_text())
        if isinstance(document, dict):
            return parse(document)
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise StateError(f"{path}: expected JSON, got something else. {remedy}") from None
    except ValueError:
        pass
    raise StateError(f"{path}: expected {form}, got another form. {remedy}")
