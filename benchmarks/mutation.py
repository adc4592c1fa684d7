"""How many small changes of the code the tests notice: `make mutants` runs mutmut, then this writes the table.

`python -m benchmarks.mutation docs/results/mutation/README.md` reads what mutmut left in `mutants/`. A mutant counts as
killed when a test failed or did not end in time, and as survived when all tests passed or none reaches it. One that was
not tried is counted nowhere but in its own column; the table shows that column when there are such mutants.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
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


def table(found: dict[str, Counter[str]]) -> str:
    """The Markdown table: a row for each module, then one for all of them."""
    untried = any(fate["untried"] for fate in found.values())
    columns = ["killed", "survived", *(["untried"] if untried else [])]
    rows = [[f"`{module}`", *_figures(fate, columns)] for module, fate in found.items()]
    rows.append(["all", *_figures(sum(found.values(), Counter()), columns)])
    return "\n".join(map(_row, [["module", "mutants", *columns, "score"], ["---"] * (len(columns) + 3), *rows]))


def _figures(fate: Counter[str], columns: Iterable[str]) -> list[str]:
    tried = fate["killed"] + fate["survived"]
    score = f"{100 * fate['killed'] / tried:.1f} %" if tried else "–"
    return [str(fate.total()), *(str(fate[column]) for column in columns), score]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table and write it to the file that the command names."""
    if len(sys.argv) != 2:
        sys.exit(f"expected the file to write, got {sys.argv[1:]}")
    found = fates(MUTANTS)
    if not found:
        sys.exit(f"expected what mutmut leaves in {MUTANTS}/, found nothing")
    print(rows := table(found))
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
