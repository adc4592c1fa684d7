"""The index of `docs/adr`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from infra.reference.markdown import page, table
from infra.settings.described import paragraph

ADR: Final = Path(__file__).parents[2] / "docs" / "adr"
_TITLE: Final = re.compile(r"# (\d+)[.:] (.*)")
_CONTEXT: Final = re.compile(r"(?:## Context\n+|\*\*Context\.\*\* )(.*?)(?:\n\n|\Z)", re.DOTALL)
_SENTENCE: Final = re.compile(r"(.*?(?<! al)[.?!])(?:\s|\Z)", re.DOTALL)


def decisions() -> str:
    """The page: every decision with the first sentence of its context."""
    rows = []
    for file in sorted(ADR.glob("[0-9]*.md")):
        text = file.read_text(encoding="utf-8")
        title, context = _TITLE.match(text), _CONTEXT.search(text)
        if title is None or context is None:
            raise ValueError(f"{file.name}: expected `# NUMBER: TITLE` and a section Context")
        name = title[2][0].upper() + title[2][1:]
        sentence = _SENTENCE.match(context[1])
        rows.append((str(int(title[1])), f"[{name}]({file.name})", paragraph(sentence[1] if sentence else context[1])))
    return page(
        "Decisions",
        "What others may question has a page here: context, choice, what would change our mind. "
        "Missing numbers were not used, or their decision is gone with what it was about.",
        table(("ADR", "decision", "why it came up"), rows),
    )
