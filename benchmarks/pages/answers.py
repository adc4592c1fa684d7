"""The short table of robust accuracies: one row for each network and bound that a reader may cite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.pages.cases import CASES
from benchmarks.pages.figure import MARK, RESULTS, read, stale
from lab.results.markdown import markdown

HARD_EPS = 0.03
"""The bound of the rows of scenes."""


def answers(results: Path = RESULTS) -> str:
    """Return the table: runs of the fleet's defence, hardened networks first, then the network of `up` on scenes."""
    heads = (
        "network, behind the drop", "pictures", "L∞ ε", "attacks", "clean", "worst case",
        "checklist: passed / failed / not run", "page",
    )  # fmt: skip
    return markdown(heads, [*_runs(results), *_scenes(results)])


def _runs(results: Path) -> Iterator[list[str]]:
    found = [run for run in CASES["judged"](read(results, "red-team/*/result.json")) if "fleet" in run["folder"]]
    for run in sorted(found, key=lambda run: ("hardened" not in run["network"], run["eps"])):
        yield [
            f"`{run['network']}`", f"CIFAR-10, first {run['images']}", run["bound"], str(len(run["per_attack"])),
            f"{run['clean_accuracy']:.3f}", f"{run['worst_case_accuracy']:.3f} [{run['low']:.3f}, {run['high']:.3f}]",
            f"{run['passed']} / {run['failed']} / {run['left']}", f"[run](red-team/{run['folder']}/README.md)",
        ]  # fmt: skip


def _scenes(results: Path) -> Iterator[list[str]]:
    file = "hardening/adapted"
    stored = [row for row in read(results, file) if (row["scenes"], float(row["eps"])) == ("hard", HARD_EPS)]
    current = read(results, file, stale(results, "hardening"))
    for row in stored:
        found = next(iter(CASES["withstood"]([row])))
        mark = "" if row in current else MARK
        yield [
            f"`{found['network']}`", f"{row['frames']} hard scenes, {row['width']}×{row['height']}", f"{HARD_EPS:g}",
            "3, by gradients", f"{float(row['clean']):.3f}",
            f"{float(row['worst']):.3f} [{found['low']:.3f}, {found['high']:.3f}]{mark}", "not run",
            "[network](hardening/scene.md)",
        ]  # fmt: skip
