"""Rows for a person: a table if its words fit into the terminal, else a block of lines for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.printable import printable

_FRAME: Final = 3
"""Characters of a table's frame for each column; the frame has one more in all."""


def print_rows(console: Console, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under the names of their columns without breaking a word; columns without a value are left out.

    Control characters are replaced: a cell may be text of a camera.
    """
    rows = [[printable(each) for each in row] for row in rows]
    kept = [place for place in range(len(names)) if any(row[place] for row in rows)]
    widths = [max(_longest_word(row[place]) for row in (names, *rows)) for place in kept]
    spare = console.width - sum(widths) - _FRAME * len(kept) - 1
    if spare < 0:
        for row in rows:
            first, *others = (place for place in kept if row[place])
            console.print(Text(row[first]))
            for place in others:
                console.print(Text(f"  {names[place]}: {row[place]}"))
        return
    table = Table()
    for place, width in zip(kept, widths, strict=True):
        wider = min(spare, max(len(row[place]) for row in (names, *rows)) - width)
        table.add_column(names[place], width=width + wider)
        spare -= wider
    for row in rows:
        table.add_row(*(Text(row[place]) for place in kept))
    console.print(table)


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)
