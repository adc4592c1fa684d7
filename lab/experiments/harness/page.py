"""Pages of results: tables of columns made from records, and the file that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from lab.results.markdown import markdown
from schemas.runtime.atomic_file import replacing

Record = TypeVar("Record")


@dataclass(frozen=True)
class Column(Generic[Record]):
    """A column: its head, and the text of each record."""

    head: str
    text: Callable[[Record], str]


def table(columns: Sequence[Column[Record]], records: Iterable[Record]) -> str:
    """Return a Markdown table; empty if there are no records."""
    return markdown([each.head for each in columns], ([each.text(record) for each in columns] for record in records))


def cells(records: Iterable[Mapping[str, str]]) -> str:
    """Return a Markdown table of records with the same keys, which are its heads; empty if there are no records."""
    lines = list(records)
    return markdown(list(lines[0]), (list(line.values()) for line in lines)) if lines else ""


def write_page(file: Path, parts: Iterable[str]) -> None:
    """Write the parts that are not empty, separated by empty lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as fresh:
        fresh.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
