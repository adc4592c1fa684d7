"""How many small changes of the code the tests notice: `make mutants` runs mutmut, then this writes the tables.

`python -m benchmarks.mutation docs/results/mutation/README.md` reads what mutmut left in `mutants/`. A mutant counts as
killed when a test failed or did not end in time, and as survived when all tests passed or none reaches it. One that was
not tried has a column of its own, and counts against the score, which then says at least how many are killed.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Final

from mutmut.stats import status_by_exit_code

MUTANTS: Final = Path("mutants")
KILLED: Final = {"killed", "timeout", "segfault"}
UNTRIED: Final = {"not checked", "check was interrupted by user"}


def fates(folder: Path) -> dict[str, Counter[str]]:
    """By module, how many of its mutants met which fate: killed, survived or untried."""
    found = {}
    for meta in sorted(folder.rglob("*.py.meta")):
        codes = json.loads(meta.read_text())["exit_code_by_key"].values()
        if codes:
            module = str(meta.relative_to(folder)).removesuffix(".meta")
            found[module] = Counter(_fate(status_by_exit_code[code]) for code in codes)
    return found


def _fate(status: str) -> str:
    if status in UNTRIED:
        return "untried"
    return "killed" if status in KILLED else "survived"


def by_room(found: dict[str, Counter[str]], patterns: Iterable[str]) -> dict[str, Counter[str]]:
    """The fates of all modules that each of the `patterns` names, then of all of them."""
    rooms = {
        pattern.removesuffix("*.py"): sum((found[name] for name in found if fnmatch(name, pattern)), Counter())
        for pattern in patterns
    }
    return {**rooms, "all": sum(found.values(), Counter())}


def table(title: str, found: dict[str, Counter[str]]) -> str:
    """A Markdown table with a row for each name."""
    untried = any(fate["untried"] for fate in found.values())
    columns = ["killed", "survived", *(["untried"] if untried else [])]
    rows = [[f"`{name}`" if name != "all" else name, *_figures(fate, columns)] for name, fate in found.items()]
    return "\n".join(map(_row, [[title, "mutants", *columns, "score"], ["---"] * (len(columns) + 3), *rows]))


def _figures(fate: Counter[str], columns: Iterable[str]) -> list[str]:
    # Those that are to be tried again are often survivors, so that a share of those that were tried would say too much.
    score = f"{'≥ ' if fate['untried'] else ''}{100 * fate['killed'] / fate.total():.1f} %" if fate.total() else "–"
    return [str(fate.total()), *(str(fate[column]) for column in columns), score]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the tables and write them to the file that the command names."""
    if len(sys.argv) != 2:
        sys.exit(f"expected the file to write, got {sys.argv[1:]}")
    found = fates(MUTANTS)
    if not found:
        sys.exit(f"expected what mutmut leaves in {MUTANTS}/, found nothing")
    patterns = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]
    rows = f"{table('room', by_room(found, patterns))}\n\n{table('module', found)}"
    print(rows)
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        "# Mutants that the tests notice\n\n"
        f"Written by `make mutants` with mutmut {version('mutmut')}. Killed: a test failed or did not end in time. "
        "Survived: all tests\npassed, or none reaches the change. "
        "[ADR 20](../../adr/0020-mutation.md) says what is changed, and what survives.\n\n"
        f"{rows}\n"
    )


if __name__ == "__main__":
    main()
