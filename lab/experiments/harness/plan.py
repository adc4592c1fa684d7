"""A planned experiment, the measurement of its cells, and the staleness of its rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.cache import Cache
from lab.experiments.harness.cell import Cell
from lab.experiments.harness.ledger import is_harmless
from lab.experiments.harness.store import UNKNOWN, Row, Store, columns_of, row_of
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MISSING: Final = "missing"
"""The staleness of a cell without a row."""


@dataclass(frozen=True)
class Workplace:
    """The folders of an experiment: `results` for rows and pages, `runs` for checkpoints, `data` for data sets."""

    results: Path = Path("docs/results")
    runs: Path = Path("runs")
    data: Path | None = None

    def data_set(self, name: str) -> Path:
        """Return the file of a data set, which may be missing."""
        return (self.data or Path()) / f"{name}.npz"

    def needed_data(self) -> Path:
        """Return the folder of the data sets. Raises ConfigError if none is set."""
        if self.data is None:
            raise ConfigError("POINTILLIST_DATA is missing: expected the folder of the data sets. Set the variable.")
        return self.data

    def cache(self, name: str) -> Cache:
        """Return the checkpoints of the experiment `name`."""
        return Cache(self.runs / name)

    def committed_cache(self, name: str) -> Cache:
        """Return the checkpoints that are committed with the rows, so that another machine continues a row of hours."""
        return Cache(self.results / name / "checkpoints")

    def store(self, name: str) -> Store:
        """Return the rows of the experiment `name`."""
        return Store(self.results / name)


@dataclass(frozen=True)
class Plan:
    """An experiment: its cells in the order of their worth, its tables, and the page that is written from its rows."""

    name: str
    tables: Mapping[str, type[DataclassInstance]]
    cells: tuple[Cell, ...]
    store: Store
    write_page: Callable[[], Sequence[str]]
    """Write the page from the stored rows alone; return the lines of its verdict."""

    def measure(self, cell: Cell, command: str) -> Row:
        """Measure a cell and store its row, with the state of code and inputs at the beginning."""
        _ = cell.code_state, cell.input_state  # They are cached: a change meanwhile is not what was measured.
        begun = time.monotonic()
        row = row_of(cell, cell.measure(), command, time.monotonic() - begun)
        self.store.put(row, columns_of(self.tables), [each.name for each in self.cells])
        return row


def staleness(cell: Cell, rows: Mapping[str, Row]) -> str:
    """Return the reason why a cell has to be measured; empty if its row holds."""
    row = rows.get(cell.name)
    if row is None:
        return MISSING
    if row.made.code == UNKNOWN:
        return "code not recorded"
    now = cell.code_state
    if row.made.code != now and not is_harmless(cell.code, row.made.code, now):
        return "other code"
    # Inputs of early rows were not recorded; today's bundles and settings are assumed.
    return "other inputs" if row.made.inputs not in (UNKNOWN, cell.input_state) else ""
