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


def decisions() -> str:
    """Return the page: every decision with its summary."""
    rows = []
    for file in sorted(ADR.glob("[0-9]*.md")):
        text = file.read_text(encoding="utf-8")
        title, summary = _TITLE.match(text), _SUMMARY.search(text)
        if title is None or summary is None:
            raise ValueError(f"{file.name}: expected `# NUMBER. TITLE` and a section Summary")
        name = title[2][0].upper() + title[2][1:]
        rows.append((str(int(title[1])), f"[{name}]({file.name})", paragraph(summary[1])))
    return page(
        "Decisions",
        "Each decision that others may question has a page: summary, context, decision, consequences, and what would "
        "change it. A missing number was not used, or its decision went with its subject.",
        table(("ADR", "decision", "summary"), rows),
    )
