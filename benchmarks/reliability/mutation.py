"""The share of small code changes that the tests detect: `make mutants` draws changes at random and tries them.

`python -m benchmarks.reliability.mutation --sample 1000 --out docs/results/mutation/README.md` has mutmut make all
mutants of the modules that pyproject.toml names, draws some of them, and has mutmut try those. A mutant is killed if a
test failed or did not end in time. It has survived if all tests passed or no test reaches it. `--sample 0` tries all,
which takes hours. With patterns of names, such as `schemas.ranges*`, those are tried and nothing is written.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Final

from mutmut.stats import status_by_exit_code

from lab.statistics import wilson

MUTANTS: Final = Path("mutants")
KILLED: Final = {"killed", "timeout", "segfault"}
UNTRIED: Final = {"not checked", "check was interrupted by user"}


def exit_codes(folder: Path) -> dict[str, dict[str, int | None]]:
    """Return mutmut's exit code of each mutant by module and name; None if it was not tried."""
    return {
        str(meta.relative_to(folder)).removesuffix(".meta"): json.loads(meta.read_text())["exit_code_by_key"]
        for meta in sorted(folder.rglob("*.py.meta"))
    }


def draw(names: Iterable[str], count: int, seed: int = 0) -> list[str]:
    """Return `count` of the names at random, all of them if there are fewer or `count` is 0."""
    ordered = sorted(names)
    return random.Random(seed).sample(ordered, min(count or len(ordered), len(ordered)))


def fates(codes: dict[str, dict[str, int | None]], drawn: Collection[str]) -> dict[str, Counter[str]]:
    """Return by module how many drawn mutants were killed, survived or stayed untried, and how many were left out."""
    found = {}
    for module, by_name in codes.items():
        if by_name:
            fate = Counter(_fate(status_by_exit_code[code]) for name, code in by_name.items() if name in drawn)
            found[module] = fate + Counter(left=len(by_name) - fate.total())
    return found


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
    """Return a Markdown table with a row for each name; scores of a sample have 95 % Wilson intervals."""
    columns = [title, "mutants", "drawn", "killed", "survived", "untried", "score"]
    rows = [[f"`{name}`" if name != "all" else name, *_figures(fate)] for name, fate in found.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, ["---"] * len(columns), *rows])


def _figures(fate: Counter[str]) -> list[str]:
    # Untried mutants are often survivors. A share of the tried ones alone would be too high.
    drawn = fate["killed"] + fate["survived"] + fate["untried"]
    score = f"{100 * fate['killed'] / drawn:.1f} %" if drawn else "–"
    if drawn and fate["left"]:
        interval = wilson(fate["killed"], drawn)
        score += f" ({100 * interval.low:.1f}–{100 * interval.high:.1f})"
    return [str(fate.total()), str(drawn), *(str(fate[name]) for name in ("killed", "survived", "untried")), score]


def _mutmut(*names: str) -> None:
    if subprocess.run([str(Path(sys.executable).with_name("mutmut")), "run", *names], check=False).returncode:
        sys.exit("mutmut: expected a run to its end, got an error. Read its output above.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Try mutants, print the tables and, for a sample, write them to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="patterns of mutants to try instead of a sample")
    parser.add_argument("--sample", type=int, default=1000, help="number of mutants to draw; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    # Any run makes the mutants of all modules; the smallest module's are tried meanwhile.
    _mutmut(*(options.names or ["producers.spool.clock*"]))
    codes = exit_codes(MUTANTS)
    drawn = {name for by_name in codes.values() for name in by_name if any(fnmatch(name, n) for n in options.names)}
    if not options.names:
        drawn = set(draw((name for by_name in codes.values() for name in by_name), options.sample, options.seed))
        _mutmut(*sorted(drawn))
    found = fates(exit_codes(MUTANTS), drawn)
    patterns = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]
    rows = f"{table('room', by_room(found, patterns))}\n\n{table('module', found)}"
    print(rows)
    if options.out and not options.names:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            "# Mutants that the tests notice\n\n"
            f"Written by `make mutants` with mutmut {version('mutmut')}, which tried {len(drawn):,} mutants drawn at "
            f"random with seed {options.seed}. Killed: a test\nfailed or did not end in time. Survived: all tests "
            "passed, or none reaches the change. Intervals are 95 % by Wilson. "
            "[ADR 20](../../adr/0020-mutation.md)\nsays what is changed, and what survives.\n\n"
            f"{rows}\n"
        )


if __name__ == "__main__":
    main()
