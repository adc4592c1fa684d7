"""Figures of the documentation: each is declared in one line of a TOML file, and one renderer makes the tables.

A page has the file `PAGE.toml` with sources:

    [[source]]
    file = "trunk/nodes.json"       # below docs/results: JSON, a pattern of JSON files, EXPERIMENT for its store
                                    # of rows, or EXPERIMENT/TABLE for the records of one table
    command = "python -m …"         # if it is not in the document's own `command`
    at = "result"                   # the field that holds the case, as a dotted path (default: the document)
    each = true                     # that field maps names to cases, or lists them; a case gets its key as `name`
    cases = "attacks"               # instead: the function of `cases.py` that makes the cases from the document
    extra.kill = { fault = "…" }    # more fields of the case of that name
    section = "…"                   # a heading: this source and the following ones get their own table below it
    optional = true                 # a figure reads "not measured" if the file, or a field of it, is missing
    figures = [
        { what = "{fault}: lost", measured = "{frames_lost} of {frames_published}", must = "0", aim = "0" },
    ]

All texts of a figure are templates, see `Template`. Unless it is given, `reached` is the verdict by the bounds.
`needs` names a field without which a case has no such figure.

A figure that reads otherwise without the rows of older code is marked: it needs one of them.
"""

from __future__ import annotations

import json
import string
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from lab.experiments.harness.store import Row as StoredRow
from lab.experiments.harness.store import Store
from lab.results.bounds import reached as verdict
from lab.results.markdown import markdown

RESULTS: Final = Path(__file__).resolve().parents[2] / "docs" / "results"
"""The folder of committed measurements."""
NONE: Final = "–"
MISSING: Final = "not measured"
STALE: Final = "stale.json"
"""The experiments' rows of older code, written by `pointillist lab stale --json`."""
MARK: Final = " †"
FOOTNOTE: Final = (
    "† Made by older code at least in part, and no golden batch shows that the change is harmless. "
    "`pointillist lab stale` lists the rows."
)

Case = Mapping[str, Any]
"""The fields of one measured case, by name."""


class Template(string.Formatter):
    """Templates as in `str.format`, with more conversions and units.

    `!t`, `!n`, `!l`, `!m` and `!k` are the total, the number, the least and the most of a list or of a mapping's
    values, and the key of the most. `.1f÷1000` and `.1f×1000` divide and multiply. A number in a text is converted.
    """

    def convert_field(self, value: Any, conversion: str | None) -> Any:  # noqa: D102  # as in the base class
        if conversion is None or conversion not in "tnlmk":
            return super().convert_field(value, conversion)
        if conversion == "k":
            return max(value, key=value.get)
        values = list(value.values() if isinstance(value, Mapping) else value)
        if conversion in "nt":
            return len(values) if conversion == "n" else sum(values)
        return min(values) if conversion == "l" else max(values)

    def format_field(self, value: Any, format_spec: str) -> str:  # noqa: D102  # as in the base class
        if format_spec.endswith("f") and isinstance(value, str):
            value = float(value)
        for sign, power in (("÷", -1), ("×", 1)):
            format_spec, found, factor = format_spec.partition(sign)
            if found:
                value = float(value) * float(factor) ** power
        return str(super().format_field(value, format_spec))


class Row(NamedTuple):
    """A row of a page's table."""

    what: str
    paper: str
    must: str
    aim: str
    measured: str
    reached: str
    command: str


@dataclass(frozen=True)
class Figure:
    """A figure: its name, its value and its bounds, each a template over the fields of a case."""

    what: str
    measured: str
    must: str = NONE
    aim: str = NONE
    needs: str = ""
    paper: str = ""
    reached: str = ""

    def row(self, case: Case, command: str, *, optional: bool = False) -> Row:
        """Return the figure of a case. With `optional`, the measured value may be missing."""

        def filled(text: str) -> str:
            return Template().vformat(text, (), case)

        try:
            measured = filled(self.measured)
        except KeyError:
            if not optional:
                raise
            measured = MISSING
        what, paper, must, aim, reached, by = map(
            filled, (self.what, self.paper, self.must, self.aim, self.reached, command)
        )
        return Row(what, paper, must, aim, measured, reached or verdict(must, aim, measured), by)


Cases = Callable[[Any], Iterable[Case]]


@dataclass(frozen=True)
class Source:
    """A file of measurements, the command that writes it, and the figures of each of its cases."""

    file: str
    figures: tuple[Figure, ...]
    command: str = ""
    at: str = ""
    each: bool = False
    cases: Cases | None = None
    extra: Mapping[str, Case] = field(default_factory=dict)
    optional: bool = False
    section: str = ""

    def rows(self, results: Path = RESULTS) -> Iterator[Row]:
        """Yield a row for each figure of each case. A missing file that is not optional is one row that states it."""
        old = stale(results, self.file.partition("/")[0])
        current = self._without(results, old) if old else {}
        for rows in self._cases(results):
            for row in rows:
                needed = old and row not in current.get(rows[0].what, ())
                yield row._replace(measured=f"{row.measured}{MARK}") if needed else row

    def _without(self, results: Path, left_out: frozenset[str]) -> dict[str, list[Row]]:
        """Return the rows of each case without the rows `left_out` of the store, by the name of the first figure."""
        try:
            return {rows[0].what: rows for rows in self._cases(results, left_out)}
        except (LookupError, ValueError, ArithmeticError):
            return {}  # a case needs one of them

    def _cases(self, results: Path, left_out: frozenset[str] = frozenset()) -> Iterator[list[Row]]:
        """Yield the rows of each case that has a figure."""
        document = read(results, self.file, left_out)
        if not document:
            if not self.optional:
                yield [Row(self.file, "", NONE, NONE, MISSING, "", self.command)]
                return
            document = {}
        command = self.command or f"`{document['command']}`"
        for case in self.cases(document) if self.cases else self._found(document):
            rows = [
                figure.row(case, command, optional=self.optional)
                for figure in self.figures
                if not figure.needs or case.get(figure.needs) not in (None, "")
            ]
            if rows:
                yield rows

    def _found(self, document: Any) -> Iterator[Case]:
        for step in filter(None, self.at.split(".")):
            document = document.get(step, {}) if self.optional else document[step]
        if not self.each:
            document = {"": document}
        elif not isinstance(document, Mapping):
            document = dict(enumerate(document))
        for name, case in document.items():
            yield {"name": name, **self.extra.get(str(name), {}), **case}


def sources(page: Path, functions: Mapping[str, Cases]) -> list[Source]:
    """Return the sources that the TOML file of a page declares. `functions` are those that it may name."""
    found = []
    for entry in tomllib.loads(page.read_text(encoding="utf-8"))["source"]:
        figures = tuple(Figure(**figure) for figure in entry.pop("figures"))
        name = entry.pop("cases", None)
        found.append(Source(**entry, figures=figures, cases=functions[name] if name else None))
    return found


@dataclass(frozen=True)
class _Current(Store):
    """A store without some of its rows."""

    left_out: frozenset[str] = frozenset()

    def read(self) -> tuple[Mapping[str, Sequence[str]], dict[str, StoredRow]]:
        columns, rows = super().read()
        return columns, {name: row for name, row in rows.items() if name not in self.left_out}


def stale(results: Path, experiment: str) -> frozenset[str]:
    """Return the names of the experiment's rows of older code."""
    return frozenset((read(results, STALE) or {}).get(experiment, {}).get("stale", ()))


def read(results: Path, file: str, left_out: frozenset[str] = frozenset()) -> Any:
    """Return the content of a source's file: JSON, records of text, or a store without the rows `left_out`.

    Of several files, those in the folders of rows `run/FOLDER` that are left out are left out too.

    It is empty or None if the file is missing.
    """
    if "*" in file:
        found = [each for each in sorted(results.glob(file)) if f"run/{each.parent.name}" not in left_out]
        return [{"folder": each.parent.name, **json.loads(each.read_text(encoding="utf-8"))} for each in found]
    place = results / file
    if place.suffix:
        return json.loads(place.read_text(encoding="utf-8")) if place.is_file() else None
    experiment, _, name = file.partition("/")
    store = _Current(results / experiment, left_out)
    if name:
        return store.texts(name)
    return store if store.file.is_file() else None


def table(rows: Sequence[Row]) -> str:
    """Return the Markdown table without its empty columns. A command stands in the first of its rows."""
    lines, before = [], ""
    for row in rows:
        lines.append(row if row.command != before else row._replace(command=""))
        before = row.command
    shown = [number for number in range(len(Row._fields)) if any(line[number] for line in lines)]
    found = markdown([Row._fields[number] for number in shown], ([line[number] for number in shown] for line in lines))
    return f"{found}\n\n{FOOTNOTE}" if any(row.measured.endswith(MARK) for row in rows) else found
