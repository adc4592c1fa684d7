"""Rows of an experiment with the provenance of each, in one JSON file: `docs/results/NAME/rows.json`."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lab.experiments.harness.cell import Cell, Tables
from schemas.errors import ConfigError
from schemas.runtime.atomic_file import replacing
from schemas.runtime.file_lock import locked_folder

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROWS: Final = "rows.json"
PLACES: Final = 5
"""Decimal places of the figures."""
UNKNOWN: Final = ""
"""The digest of a row whose code or inputs were not recorded."""

Record = TypeVar("Record", bound="DataclassInstance")


@dataclass(frozen=True)
class Made:
    """The provenance of a row."""

    command: str = ""
    code: str = UNKNOWN
    """The digest of the code."""
    inputs: str = UNKNOWN
    """The digest of settings, seed, bundles and data."""
    seed: int = 0
    at: str = ""
    """UTC, to the second."""
    machine: str = ""
    """Architecture and number of cores."""
    seconds: float | None = None
    """Duration of the measurement."""


@dataclass(frozen=True)
class Row:
    """The values of a cell, `tables` of records as lists of values, and their provenance."""

    name: str
    made: Made
    tables: Mapping[str, Sequence[Sequence[Any]]]


@dataclass(frozen=True)
class Store:
    """The rows in `folder`. A reader finds the file before a write or after it, never a part."""

    folder: Path

    @property
    def file(self) -> Path:
        """The JSON file."""
        return self.folder / ROWS

    def rows(self) -> dict[str, Row]:
        """All rows by name, in the order of the file. Raises ConfigError for a file of another form."""
        return self.read()[1]

    def read(self) -> tuple[Mapping[str, Sequence[str]], dict[str, Row]]:
        """Return the columns of each table, and all rows by name. Raises ConfigError for a file of another form."""
        try:
            document = json.loads(self.file.read_text(encoding="utf-8"))
            return document["columns"], {
                name: Row(name, Made(**row["made"]), row["tables"]) for name, row in document["rows"].items()
            }
        except FileNotFoundError:
            return {}, {}
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise ConfigError(
                f"{self.file}: expected rows of an experiment, got {error!r}. Restore the file."
            ) from None

    def records(self, table: str, kind: type[Record]) -> list[Record]:
        """Return the records of a table, of all rows. Raises ConfigError for other columns than those of `kind`."""
        every, rows = self.read()
        names, columns = [field.name for field in fields(kind)], every.get(table)
        if columns is not None and columns != names:
            raise ConfigError(f"{self.file}, {table}: expected the columns {', '.join(names)}, got {columns}")
        return [kind(*values) for row in rows.values() for values in row.tables.get(table, ())]

    def texts(self, table: str) -> list[dict[str, str]]:
        """Return the records of a table as text by column: None as nothing, figures without trailing zeros."""
        every, rows = self.read()
        columns = every.get(table, ())
        return [
            dict(zip(columns, map(_text, values), strict=True))
            for row in rows.values()
            for values in row.tables.get(table, ())
        ]

    def put(self, row: Row, columns: Mapping[str, Sequence[str]], order: Sequence[str]) -> None:
        """Write one row in the place of the earlier one. Rows keep the `order` of names; unknown names come last.

        Earlier rows with records of a table whose columns have changed are deleted, and named on stderr: under the new
        columns, their values would read as others. Records of a table that is no more are left out.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked_folder(self.folder):
            earlier, rows = self.read()
            changed = {name for name, names in columns.items() if earlier.get(name, list(names)) != list(names)}
            kept = dict[str, Row]()
            for each in rows.values():
                if any(each.tables.get(name) for name in changed):
                    print(f"{self.file}: {each.name} is deleted, its columns have changed", file=sys.stderr)
                else:
                    tables = {name: found for name, found in each.tables.items() if name in columns}
                    kept[each.name] = replace(each, tables=tables)
            rows = kept | {row.name: row}
            place = {name: number for number, name in enumerate(order)}
            self._write(columns, sorted(rows.values(), key=lambda each: place.get(each.name, len(place))))

    def _write(self, columns: Mapping[str, Sequence[str]], rows: Sequence[Row]) -> None:
        lines = [f'"columns": {_json({name: list(names) for name, names in columns.items()})},', '"rows": {']
        for number, row in enumerate(rows):
            tables = ",\n".join(
                f"  {_json(name)}: [\n" + ",\n".join(f"   {_json(record)}" for record in records) + "]"
                for name, records in row.tables.items()
            )
            end = "," if number + 1 < len(rows) else ""
            made = {name: value for name, value in asdict(row.made).items() if value not in (UNKNOWN, None)}
            lines += [f" {_json(row.name)}: {{", f'  "made": {_json(made)},', f'  "tables": {{\n{tables}}}}}{end}']
        with replacing(self.file) as fresh:
            fresh.write_text("{\n" + "\n".join(lines) + "\n}}\n", encoding="utf-8")


def row_of(cell: Cell, tables: Tables, command: str, seconds: float) -> Row:
    """Return the row of a cell that was measured now. Figures are rounded to `PLACES`."""
    made = Made(
        command, cell.code_state, cell.input_state, cell.seed, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        f"{platform.machine()}, {os.cpu_count()} cores", round(seconds, 1),
    )  # fmt: skip
    values = {name: [values_of(record) for record in records] for name, records in tables.items()}
    return Row(cell.name, made, values)


def values_of(record: DataclassInstance) -> list[Any]:
    """Return the values of a record in the order of its fields, figures rounded."""
    return [_rounded(getattr(record, field.name)) for field in fields(record)]


def columns_of(tables: Mapping[str, type[DataclassInstance]]) -> dict[str, list[str]]:
    """Return the columns of each table."""
    return {name: [field.name for field in fields(kind)] for name, kind in tables.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    # A figure that is whole reads the same as a float.
    return round(value, PLACES) if isinstance(value, float) else value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.{PLACES}f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
