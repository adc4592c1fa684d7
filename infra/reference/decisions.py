"""The index page of `docs/adr`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from infra.reference.markdown import page, table
from infra.settings.described import paragraph

ADR: Final = Path(__file__).parents[2] / "docs" / "adr"
_TITLE: Final = re.compile(r"# (\d+)[.:] (.*)")
_SUMMARY: Final = re.compile(r"^## (?:Summary|Context)\n+(.*?)(?:\n\n|\Z)", re.DOTALL | re.MULTILINE)
"""The first paragraph of the first section."""
_REPLACED: Final = re.compile(r"\[ADR (\d+)\]\(([^)]+)\)[^.\[]*?\breplaced\b", re.DOTALL)
"""The mention of a later decision that replaces a part of this one."""
SUBJECTS: Final = {
    "From camera to record": (1, 3, 4, 5, 14, 15, 19, 30, 35, 37, 40),
    "Cameras": (17, 31, 32, 43, 51, 53, 60, 72, 75, 77),
    "Pixels and reconstruction": (2, 6, 7, 16, 22, 29),
    "Models and processors": (9, 28, 45, 63, 66, 67),
    "Attacks and hardening": (23, 24, 25, 26, 27, 68),
    "Backdoors: evidence and repair": (8, 10, 11, 69, 76, 78, 79, 80, 81, 83),
    "Keys, rights and limits": (13, 33, 34, 36, 38, 39, 46, 47, 48, 49, 70, 82),
    "Console and alarms": (41, 44, 52, 61, 62, 73, 74),
    "The code and its tests": (20, 21, 54, 56, 57, 71),
}
"""The numbers of the decisions by subject."""


def decisions() -> str:
    """Return the page: every decision with its summary, by subject. Raises ValueError for one without a subject."""
    rows = dict(_row(file) for file in sorted(ADR.glob("[0-9]*.md")))
    if sorted(rows) != sorted(number for numbers in SUBJECTS.values() for number in numbers):
        raise ValueError(f"SUBJECTS: expected each decision once of {sorted(rows)}, got others. Correct SUBJECTS.")
    parts = [
        f"## {subject}\n\n{table(('ADR', 'decision', 'summary'), [rows[number] for number in numbers])}"
        for subject, numbers in SUBJECTS.items()
    ]
    return page(
        "Decisions",
        "Each decision that others may question has a page: summary, context, decision, consequences, and what would "
        "change it. A missing number was not used, or its decision went with its subject.",
        *parts,
    )


def _row(file: Path) -> tuple[int, tuple[str, str, str]]:
    text = file.read_text(encoding="utf-8")
    title, summary = _TITLE.match(text), _SUMMARY.search(text)
    if title is None or summary is None:
        raise ValueError(f"{file.name}: expected `# NUMBER. TITLE` and a section Summary")
    name = f"[{title[2][0].upper()}{title[2][1:]}]({file.name})"
    if replaced := _REPLACED.search(text):
        name += f" (*replaced in part by [{replaced[1]}]({replaced[2]})*)"
    return int(title[1]), (title[1], name, paragraph(summary[1]))
