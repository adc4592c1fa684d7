"""The share of small code changes that the tests detect: `make mutants` runs mutmut, then this writes the tables.

`python -m benchmarks.reliability.mutation docs/results/mutation/README.md` reads mutmut's output in `mutants/`. A
mutant is killed if a test failed or did not end in time. It has survived if all tests passed or no test reaches it.
An untried mutant has a separate column and counts against the score, which is then a lower bound.

A commit as second argument takes rows over from the table in that commit. It takes rows of modules that have not
changed since, if more of their mutants were killed there: a run that was cut short hides no earlier one.
"""

from __future__ import annotations

import json
import re
import subprocess
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
    """Return the number of mutants with each fate, by module: killed, survived or untried."""
    found = {}
    for meta in sorted(folder.rglob("*.py.meta")):
        codes = json.loads(meta.read_text())["exit_code_by_key"].values()
        if codes:
            module = str(meta.relative_to(folder)).removesuffix(".meta")
            found[module] = Counter(_fate(status_by_exit_code[code]) for code in codes)
    return found


def read_table(text: str) -> dict[str, Counter[str]]:
    """Return the fates by module in a table of `table`."""
    rows = re.findall(r"^\| `(\S+\.py)` \| \d+ \| (\d+) \| (\d+) \| (?:(\d+) \| )?\D*[\d.]+ % \|$", text, re.MULTILINE)
    return {
        name: Counter(killed=int(killed), survived=int(survived), untried=int(untried or 0))
        for name, killed, survived, untried in rows
    }


def with_earlier(found: dict[str, Counter[str]], earlier: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """Return, for each module, the fates of the run that has killed more of its mutants."""
    return {
        name: earlier[name] if name in earlier and earlier[name]["killed"] > fate["killed"] else fate
        for name, fate in found.items()
    }


def _unchanged_since(commit: str, target: str) -> dict[str, Counter[str]]:
    shown = subprocess.run(["git", "show", f"{commit}:{target}"], check=True, capture_output=True, text=True).stdout
    return {
        name: fate
        for name, fate in read_table(shown).items()
        if not subprocess.run(["git", "diff", "--quiet", commit, "--", name], check=False).returncode
    }


def _fate(status: str) -> str:
    if status in UNTRIED:
        return "untried"
    return "killed" if status in KILLED else "survived"


def by_room(found: dict[str, Counter[str]], patterns: Iterable[str]) -> dict[str, Counter[str]]:
    """Return the sums over the modules that each of the `patterns` matches, then over all of them."""
    rooms = {
        pattern.removesuffix("*.py"): sum((found[name] for name in found if fnmatch(name, pattern)), Counter())
        for pattern in patterns
    }
    return {**rooms, "all": sum(found.values(), Counter())}


def table(title: str, found: dict[str, Counter[str]]) -> str:
    """Return a Markdown table with a row for each name."""
    untried = any(fate["untried"] for fate in found.values())
    columns = ["killed", "survived", *(["untried"] if untried else [])]
    rows = [[f"`{name}`" if name != "all" else name, *_figures(fate, columns)] for name, fate in found.items()]
    return "\n".join(map(_row, [[title, "mutants", *columns, "score"], ["---"] * (len(columns) + 3), *rows]))


def _figures(fate: Counter[str], columns: Iterable[str]) -> list[str]:
    # Untried mutants are often survivors. A share of the tried ones alone would be too high.
    score = f"{'≥ ' if fate['untried'] else ''}{100 * fate['killed'] / fate.total():.1f} %" if fate.total() else "–"
    return [str(fate.total()), *(str(fate[column]) for column in columns), score]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the tables and write them to the given file."""
    if len(sys.argv) not in (2, 3):
        sys.exit(f"arguments: expected the file to write and optionally a commit, got {sys.argv[1:]}")
    found = fates(MUTANTS)
    if not found:
        sys.exit(f"{MUTANTS}/: expected mutmut's output, got none. Run `make mutants`.")
    if len(sys.argv) == 3:
        found = with_earlier(found, _unchanged_since(sys.argv[2], sys.argv[1]))
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
