"""The tables of figures in the documentation: `python -m benchmarks.pages.figures`.

The measurements are in `docs/results`. This command writes their numbers, and nothing else, between the marks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.pages.answers import answers
from benchmarks.pages.cases import CASES
from benchmarks.pages.figure import FOOTNOTE, MARK, RESULTS, Row, read, sources, stale, table
from lab.experiments.super_iot import report
from lab.experiments.super_iot.rows import QualityRow
from lab.results.bounds import LEGEND
from lab.results.markdown import markdown

ROOT: Final = RESULTS.parents[1]
NAMES: Final = ("system", "defence", "backdoors", "robustness")


class Pick(NamedTuple):
    """A figure of the README: a page, the beginning of one of its rows, and a name.

    In the name, `{end}` is the part of the row's text after the last colon, and `{more[0]}` is the figure of the row
    of the page that begins with the first text of `more`, and `{of[0]}` the number of its pictures.
    """

    page: str
    begins: str
    name: str
    more: tuple[str, ...] = ()


FRONT: Final = (
    Pick("defence", "clean, r = 0.25", "correct CIFAR-10 verdicts kept with a quarter of the pixels dropped"),
    Pick("defence", "`lossless` bytes", "`lossless` bytes ÷ `raw` bytes, videos"),
    Pick(
        "robustness", "`cifar10@1-hardened`, L∞ 8/255: worst case of all attacks of the published run",
        "accuracy of the hardened CIFAR-10 network, {end}, L∞ 8/255 (clean accuracy {more[0]}); an upper bound: "
        "another attack met the first {of[1]} only, and left {more[1]} of them",
        (
            "`cifar10@1-hardened`, fleet, r = 0.25, L∞ 8/255, without an attack",
            "the strongest of these attacks on `cifar10@1-hardened`, L∞ 8/255, alone",
        ),
    ),
    Pick(
        "robustness", "`scene@1-hardened+4de0`, hard scenes of 128×96, L∞ 0.03",
        "accuracy on hard simulated scenes of 128×96 (clean accuracy {more[0]}), three gradient attacks, each shown "
        "ten times, L∞ .03 (8/255 after rounding); an upper bound: AutoAttack alone left {more[1]} of the first "
        "{of[1]}, Square alone {more[2]} of the first {of[2]}",
        (
            "the scenes of three kinds without an attack",
            "AutoAttack alone, `scene@1-hardened+4de0`, the first of the hard scenes of 128×96, L∞ 0.03",
            "Square alone, `scene@1-hardened+4de0`, the first of the hard scenes of 128×96, L∞ 0.03",
        ),
    ),
    Pick(
        "robustness", "`scene@1-hardened+4de0`, hard scenes of 32×32, L∞ 0.03",
        "the same with frames of 32×32, the network's own size",
    ),
    Pick(
        "robustness", "`scene-stickers`, simulated scenes of 640×480",
        "certified: simulated scenes of 640×480, no pixel dropped, whose true label no sticker of 2 % of the frame "
        "changes, at any place; a network of the lab that was trained for it, 64 windows (the bound lies inside the "
        "interval); the default network: {more[0]} with 36 windows",
        ("`scene`, simulated scenes of 640×480",),
    ),
    Pick(
        "robustness", "the primary comparison, what the drop adds to `cifar10@1-hardened`",
        "gain in accuracy by the drop, hardened CIFAR-10 network, worst case, shown once, L∞ 8/255, 100 pictures "
        "(these find a gain from {more[0]} points on with a probability of 80 %, if the drop loses no picture)",
        ("the smallest gain that the primary comparison of `cifar10@1-hardened` finds",),
    ),
    Pick(
        "backdoors", "detected frames at 1 % false alarms, worst of",
        "share of the triggered frames with the attacker's class that are detected, the worst of ten backdoor attacks "
        "({end}), with false alarms limited to 1 % (the worst measured: {more[0]}); outside the ten, the worst "
        "{more[1]}, and {more[2]} of false alarms; no attack was made against all statistics at once",
        (
            "false alarms of all statistics, worst of",
            "detected frames at 1 % false alarms, outside the ten",
            "false alarms of all statistics, outside the ten",
        ),
    ),
    Pick(
        "backdoors", "false alarms of a camera in a year, a scene in ten minutes",
        "false alarms of a camera in a year, simulated with CIFAR-10 test pictures in random order under a sensor's "
        "noise, another one every ten minutes, without movement, all statistics, the worst of ten networks; another "
        "one every minute: {more[0]}. The rule was chosen on these pictures. Of the attacks that begin in a scene "
        "where they reach their target, the least share of any network found within "
        "40 probes is {more[1]} at ten minutes and {more[2]} at one",
        (
            "false alarms of a camera in a year, a scene a minute",
            "cameras with an alarm in 40 probes after an effective trigger, a scene in ten minutes",
            "cameras with an alarm in 40 probes after an effective trigger, a scene a minute",
        ),
    ),
    Pick(
        "backdoors", "repair: ASR after, worst of",
        "attack success after repair, the worst of ten attacks (all-to-all by `--mode quarantine`); outside the "
        "ten, the worst {more[0]}; of the frames with the trigger, at least {more[1]} get their own class",
        ("repair: ASR after, outside the ten", "repair: frames with the trigger that get their own class, worst of"),
    ),
    Pick(
        "system", "kill -9 of bridge",
        "published frames without a known fate (shed frames are counted apart): each process killed in turn, under "
        "load",
    ),
    Pick(
        "system", "10,000 cameras × 0.025 fps: p99",
        "capture to record, p99 after the start, 10,000 cameras, one frame each in 40 s, no console",
    ),
    Pick("system", "one camera of 768×432", "frames/s of one 768×432 camera on two cores"),
)  # fmt: skip
"""The figures by which a newcomer decides, hard cases included."""


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
    return "\n\n".join([LEGEND, *parts])


def comparisons(results: Path = RESULTS) -> list[str]:
    """Return the verdicts of Super-IoT's comparisons, with a mark on those that need a row of older code."""

    def lines(left_out: frozenset[str] = frozenset()) -> list[str]:
        store = read(results, "super-iot", left_out)
        return report.verdict_lines(report.read_results(store), store.records("psnr", QualityRow))

    old = stale(results, "super-iot")
    current = lines(old) if old else []
    return [f"{line}{MARK}" if old and line not in current else line for line in lines()]


def front(picks: Sequence[Pick] = FRONT, rows_of: Callable[[str], Sequence[Row]] = rows) -> str:
    """Return the README's table. Raises ValueError unless one row of the page begins with the text of a pick."""
    lines = []
    for page, begins, name, more in picks:
        row = _row(rows_of(page), page, begins)
        number = re.split(r" of |, (?![-+0-9.]+\])| \(", row.measured.removesuffix(MARK))[0]
        others = [_row(rows_of(page), page, each).measured for each in more]
        mark = MARK if any(each.endswith(MARK) for each in (row.measured, *others)) else ""
        found = [each.removesuffix(MARK).partition(" of ") for each in others]
        named = name.format(
            end=row.what.rpartition(": ")[2],
            more=[figure for figure, _, _ in found],
            of=[count for _, _, count in found],
        )
        link = f"[{number.replace('[', '(').replace(']', ')')}](docs/results/{page}.md){mark}"
        lines.append([named, row.must, row.aim, link, row.reached])
    shown = markdown(["figure", "must", "aim", "measured", "reached"], lines)
    return f"{shown}\n\n{FOOTNOTE}" if any(line[3].endswith(MARK) for line in lines) else shown


def requirements(results: Path = RESULTS) -> str:
    """Return the README's sentence on the memory and disk that a measured system took."""
    found = read(results, "cost/footprint.json")
    disk, systems = found["disk_bytes"], found["systems"]
    memory = {name: each["memory_bytes_in_all"] / 1e9 for name, each in systems.items()}
    stores = disk["packages"] + disk["kafka"] + max(each["state_bytes"] for each in systems.values())
    return (
        f"`up` took {memory['scene']:.1f} GB of memory with 8 simulated cameras and the small network, and "
        f"{memory['general']:.1f} GB with the general network and one attached camera;\n"
        f"program and state took {stores / 1e9:.1f} GB of disk, {disk['packages_of_torch'] / 1e9:.1f} GB of them for "
        "PyTorch with its CUDA libraries ([by role and store](docs/capacity.md#what-a-server-needs))."
    )


def _row(of: Sequence[Row], page: str, begins: str) -> Row:
    found = [row for row in of if row.what.startswith(begins)]
    if len(found) != 1:
        raise ValueError(f"{page}: expected one row that begins with {begins!r}, got {len(found)}. Correct FRONT.")
    return found[0]


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


PAGES: Final = (
    *(Block(name, RESULTS / f"{name}.md", partial(rendered, name)) for name in NAMES),
    Block("answers", RESULTS / "robustness.md", answers),
    Block("bounds", RESULTS / "qusecnets" / "bounds.md", partial(rendered, "qusecnets")),
)
README: Final = Block("figures", ROOT / "README.md", lambda: f"{LEGEND}\n\n{front()}")
REQUIREMENTS: Final = Block("requirements", ROOT / "README.md", requirements)


def main() -> None:
    """Write the tables into their pages."""
    for block in (*PAGES, README, REQUIREMENTS):
        block.page.write_text(block.put())


if __name__ == "__main__":
    main()
