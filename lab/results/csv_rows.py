"""Rows of results as CSV: one dataclass for each table, written and read without loss of displayed precision."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from schemas.errors import ConfigError
from schemas.runtime.atomic_file import replacing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PLACES = 5
"""Decimal places of the figures."""

Record = TypeVar("Record", bound="DataclassInstance")


def write_rows(file: Path, rows: Iterable[Record], kind: type[Record]) -> None:
    """Write a CSV with a header atomically. Numbers have five places; None is an empty cell."""
    file.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(kind)]
    with replacing(file) as fresh, fresh.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_text(getattr(row, name)) for name in names] for row in rows)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{PLACES}f}".rstrip("0").rstrip(".")
    return str(value)


def read_rows(file: Path, kind: type[Record]) -> list[Record]:
    """Return the rows written by `write_rows`; none without a file. Raises ConfigError for another kind of file."""
    if not file.is_file():
        return []
    types = {field.name: str(field.type) for field in fields(kind)}
    with file.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if set(reader.fieldnames or ()) != set(types):
            raise ConfigError(f"{file}: expected the columns {', '.join(types)}, got {reader.fieldnames}")
        return [kind(**{name: _value(text, types[name]) for name, text in line.items()}) for line in reader]


def _value(text: str, kind: str) -> Any:
    if not text and "None" in kind:
        return None
    plain = kind.removesuffix(" | None")
    if plain == "bool":
        return text == "True"
    return {"int": int, "float": float, "str": str}[plain](text)
