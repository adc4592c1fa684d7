"""The README's ten figures, read from the tables of the pages that they link to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Pick:
    """A row of a page's tables: the one whose first cell begins with `begins`.

    `named` replaces a first cell that is too short.
    """

    page: str
    begins: str
    named: str = ""


PICKS: Final = (
    Pick("defence", "clean", "CIFAR-10, a quarter of the pixels dropped: right of what the bare network has right"),
    Pick("defence", "`lossless` bytes"),
    Pick("robustness", "`scene@1-hardened`, scenes of 480 lines"),
    Pick("robustness", "live attack on 4 of 16 cameras"),
    Pick("backdoors", "32 cameras at 2 fps, 20 % probes"),
    Pick("backdoors", "repair, resnet20-c-1: ASR after"),
    Pick("system", "kill -9 of bridge"),
    Pick("system", "8 cameras × 2 fps: capture to record"),
    Pick("system", "10000 cameras"),
    Pick("system", "one camera of 768×432"),
)
"""One figure for each question of a newcomer: pictures, bytes, attackers, backdoors, faults, delay, size, speed."""


def rendered(pages: Mapping[str, str]) -> str:
    """Return the table, given the Markdown of each page by name. Raises ValueError for a missing row."""
    lines = ["| what | asked for | measured |", "| --- | --- | --- |"]
    for pick in PICKS:
        row = find(pages[pick.page], pick.begins)
        asked = row.get("asked for") or f"{row['must']} (aim {row['aim']})"
        first = pick.named or next(iter(row.values()))
        measured = f"[{row['measured']}](docs/results/{pick.page}.md)"
        lines.append(f"| {first} | {asked} | {measured} |")
    return "\n".join(lines)


def find(page: str, begins: str) -> dict[str, str]:
    """Return the first table row of `page` whose first cell begins with `begins`: each cell by its column's name."""
    names: Sequence[str] = ()
    for line in page.splitlines():
        if not line.startswith("|"):
            names = ()
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not names:
            names = cells
        elif cells[0].startswith(begins):
            return dict(zip(names, cells, strict=True))
    raise ValueError(f"table: expected a row that begins with {begins!r}, got none")
