"""The tables of figures in the documentation: `python -m benchmarks.pages.figures`.

The measurements are in `docs/results`. This command writes their numbers, and nothing else, between the marks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final

from benchmarks.pages.cases import CASES
from benchmarks.pages.figure import FOOTNOTE, MARK, RESULTS, Row, read, sources, stale, table
from lab.experiments.super_iot import report
from lab.experiments.super_iot.rows import QualityRow
from lab.results.markdown import markdown

ROOT: Final = RESULTS.parents[1]
NAMES: Final = ("system", "defence", "backdoors", "robustness")
FRONT: Final = (
    ("defence", "clean, r = 0.25", "correct CIFAR-10 verdicts kept with a quarter of the pixels dropped"),
    ("defence", "`lossless` bytes", "`lossless` bytes ÷ `raw` bytes, videos"),
    (
        "robustness", "`cifar10@1-hardened`, fleet, r = 0.25: worst case within L∞ 8/255",
        "hardened CIFAR-10 network under the worst of all attacks, L∞ 8/255, first 300 pictures",
    ),
    (
        "robustness", "`scene@1-hardened+4de0`, hard scenes of 128×96, L∞ 0.03",
        "hard simulated scenes of 128×96 right ten times of ten under several attacks, L∞ .03",
    ),
    (
        "robustness", "`scene@1-hardened+4de0`, hard scenes of 32×32, L∞ 0.03",
        "the same with frames of 32×32, the network's own size",
    ),
    (
        "robustness", "what the drop adds to `cifar10@1-hardened`, L∞ 8/255: worst case",
        "what the drop adds to the hardened CIFAR-10 network, L∞ 8/255 (100 pictures, one attack through the drop)",
    ),
    (
        "backdoors", "detected frames at 1 % false alarms, worst of",
        "detected frames of the worst of ten backdoor attacks, {attack}, at most 1 % false alarms set",
    ),
    (
        "backdoors", "repair: ASR after, worst of",
        "attack success after repair, the worst of ten attacks (all-to-all by `--mode quarantine`)",
    ),
    ("system", "kill -9 of bridge", "frames lost: each process killed in turn, under load"),
    (
        "system", "10,000 cameras × 0.025 fps: p99",
        "capture to record, p99 after the start, 10,000 cameras, one frame each in 40 s",
    ),
    ("system", "one camera of 768×432", "frames/s of one 768×432 camera on two cores"),
)  # fmt: skip
"""The figures by which a newcomer decides, hard cases included: a page, the beginning of one of its rows, and a name.

`{attack}` stands for the end of the row, which names the worst attack.
"""


@cache
def sections(page: str) -> dict[str, list[Row]]:
    """Return the rows of a page by the heading of their section; it is empty before the first one."""
    found: dict[str, list[Row]] = {}
    heading = ""
    for source in sources(Path(__file__).with_name(f"{page}.toml"), CASES):
        heading = source.section or heading
        found.setdefault(heading, []).extend(source.rows())
    return found


def rows(page: str) -> list[Row]:
    """Return the rows of a page."""
    return [row for section in sections(page).values() for row in section]


def rendered(page: str) -> str:
    """Return the tables of a page, with the verdicts of the comparisons on the page of the defence."""
    parts = [f"## {heading}\n\n{table(some)}" if heading else table(some) for heading, some in sections(page).items()]
    if page == "defence":
        parts.append("\n".join(f"- {line}" for line in comparisons()))
    return "\n\n".join(parts)


def comparisons(results: Path = RESULTS) -> list[str]:
    """Return the verdicts of Super-IoT's comparisons, with a mark on those that need a row of older code."""

    def lines(left_out: frozenset[str] = frozenset()) -> list[str]:
        store = read(results, "super-iot", left_out)
        return report.verdict_lines(report.read_results(store), store.records("psnr", QualityRow))

    old = stale(results, "super-iot")
    current = lines(old) if old else []
    return [f"{line}{MARK}" if old and line not in current else line for line in lines()]


def front(picks: Sequence[tuple[str, str, str]] = FRONT, rows_of: Callable[[str], Sequence[Row]] = rows) -> str:
    """Return the README's table. Raises ValueError unless one row of the page begins with the text of a pick."""
    lines = []
    for page, begins, name in picks:
        found = [row for row in rows_of(page) if row.what.startswith(begins)]
        if len(found) != 1:
            raise ValueError(f"{page}: expected one row that begins with {begins!r}, got {len(found)}. Correct FRONT.")
        measured = found[0].measured
        number = (
            re.split(r" of |, (?![-+0-9.]+\])| \(", measured.removesuffix(MARK))[0].replace("[", "(").replace("]", ")")
        )
        mark = MARK if measured.endswith(MARK) else ""
        named = name.replace("{attack}", found[0].what.rpartition(": ")[2])
        lines.append([named, found[0].must, found[0].aim, f"[{number}](docs/results/{page}.md){mark}"])
    shown = markdown(["figure", "must", "aim", "measured"], lines)
    return f"{shown}\n\n{FOOTNOTE}" if any(line[-1].endswith(MARK) for line in lines) else shown


@dataclass(frozen=True)
class Block:
    """The output of `make`, between two marks on a page."""

    name: str
    page: Path
    make: Callable[[], str]

    def put(self) -> str:
        """Return the page's text with the current block. Raises ValueError if the marks are missing."""
        begin, end = f"<!-- {self.name}: python -m benchmarks.pages.figures -->", f"<!-- end of {self.name} -->"
        before, found, rest = self.page.read_text().partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{self.page}: expected the marks {begin} and {end}, got at most one. Add them.")
        return f"{before}{begin}\n{self.make()}\n{end}{after}"


PAGES: Final = tuple(Block(name, RESULTS / f"{name}.md", partial(rendered, name)) for name in NAMES)
README: Final = Block("figures", ROOT / "README.md", front)


def main() -> None:
    """Write the tables into their pages."""
    for block in (*PAGES, README):
        block.page.write_text(block.put())


if __name__ == "__main__":
    main()
