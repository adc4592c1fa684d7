"""The table of figures in the README, taken from the tables of the pages that it links to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Pick:
    """One number of a page's table, with its requirement and its aim."""

    page: str
    """The page below `docs/results`, without its suffix."""
    begins: str
    """The beginning of the row's first cell."""
    pattern: str
    """The number within the row's measured cell: a regular expression with one group."""
    name: str
    """The quantity, in the words of the README."""
    must: str
    """The requirement; its number stands in the row."""
    aim: str = ""
    """The aim, if there is one; its number stands in the row."""
    unit: str = ""


_HARDENED: Final = "`scene@1-hardened`, scenes of 480 lines"
_DRILL: Final = "live attack on 4 of 16 cameras"
_STICKER: Final = "32 cameras at 2 fps, 20 % probes"
_KILLS: Final = "kill -9 of bridge"
_DELAY: Final = "8 cameras × 2 fps: capture to record"
_FLEET: Final = "10000 cameras"
_LARGE: Final = "one camera of 768×432"
_FIRST: Final = r"([\d.]+)"
PICKS: Final = (
    Pick(
        "defence", "clean", r"([\d.]+ ±[\d.]+)",
        "correct CIFAR-10 verdicts kept with a quarter of the pixels dropped", "≥ 0.965", "≥ 0.98",
    ),
    Pick("defence", "`lossless` bytes", _FIRST, "`lossless` bytes ÷ `raw` bytes, videos", "≤ .25"),
    Pick(
        "robustness", _HARDENED, r"([\d.]+) /",
        "hardened network: accuracy under EOT-PGD, L∞ .03, 480 lines", "≥ .95", "≥ .98",
    ),
    Pick("robustness", _HARDENED, r"/ ([\d.]+) of", "the same without an attack", "≥ .99"),
    Pick("robustness", _DRILL, r"\(([\d.]+) ×\)", "live attack: accuracy of the hardened ÷ the plain network", "≥ 1.5"),
    Pick("robustness", _DRILL, r"alert ([\d.]+) s", "live attack: slowest alert", "≤ 30 s", unit=" s"),
    Pick(
        "backdoors", _STICKER, r"(\d+) of 10 runs",
        "runs of 10 with each sticker alerted within 10 s and no false alert", "≥ 9", "10",
    ),
    Pick(
        "backdoors", "repair, resnet20-c-1: ASR after", _FIRST,
        "attack success after repair", "≤ 1.92 %", "≤ 1.52 %", " %",
    ),
    Pick("system", _KILLS, r"(\d+) lost", "frames lost: each process killed in turn, under load", "0"),
    Pick("system", _DELAY, r"([\d.]+) s,", "capture to record, median, 8 cameras", "≤ .04 s", "≤ .02 s", " s"),
    Pick("system", _DELAY, r"s, ([\d.]+) s", "capture to record, p99, 8 cameras", "≤ .10 s", "≤ .05 s", " s"),
    Pick("system", _FLEET, r"([\d.]+) s", "capture to record, p99, 10,000 cameras", "≤ 1 s", "≤ .3 s", " s"),
    Pick("system", _FLEET, r", ([\d.]+)$", "CPU for each frame, 10,000 cameras ÷ 8 cameras", "≤ 1.5", "≤ 1.1"),
    Pick("system", _LARGE, r"([\d.]+) frames/s", "frames/s of one 768×432 camera on two cores", "≥ 60", "≥ 120"),
)  # fmt: skip
"""One answer to each question of a newcomer: pictures, bytes, attackers, backdoors, faults, delay, size, speed."""


def rendered(pages: Mapping[str, str]) -> str:
    """Return the table, from the Markdown of each page by name; raise ValueError if a page lacks a number."""
    lines = ["| figure | must | aim | measured |", "| --- | --- | --- | --- |"]
    for pick in PICKS:
        row = find(pages[pick.page], pick.begins)
        asked = row.get("asked for") or f"{row['must']} {row['aim']}"
        for number in re.findall(_FIRST, f"{pick.must} {pick.aim}"):
            if number not in re.findall(_FIRST, asked):
                raise ValueError(f"{pick.name}: expected {number} among the requirements, got {asked!r}")
        measured = re.search(pick.pattern, row["measured"])
        if measured is None:
            raise ValueError(f"{pick.name}: expected a number like {pick.pattern!r}, got {row['measured']!r}")
        link = f"[{measured[1]}{pick.unit}](docs/results/{pick.page}.md)"
        lines.append(f"| {pick.name} | {pick.must} | {pick.aim or '–'} | {link} |")
    return "\n".join(lines)


def find(page: str, begins: str) -> dict[str, str]:
    """Return the first row of a table of `page` whose first cell begins with `begins`, each cell by its column."""
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
    raise ValueError(f"expected a row that begins with {begins!r}, got none")
