"""Markdown of the reference pages."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

MADE: Final = "<!-- Made by `python -m infra.reference`; a test compares it with the code. -->"
"""Stands below the title of every page that is made."""


def page(title: str, *parts: str) -> str:
    """A whole page of its parts, which are paragraphs, tables and headings; empty ones are left out."""
    blocks = [block for part in parts for block in part.strip("\n").split("\n\n") if block]
    return "\n\n".join([f"# {title}", MADE, *map(_filled, blocks)]) + "\n"


def _filled(block: str) -> str:
    """A paragraph in lines of at most 140; what is none, as it is."""
    if block.startswith(("|", "#", "- ", "<", "```", "    ")):
        return block
    return textwrap.fill(block, 140, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; "" of no rows."""
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines]) if lines else ""


def paragraphs(text: str | None) -> str:
    """All paragraphs of a docstring, each on one line; lists keep their lines."""
    parts = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(part if part.startswith(("- ", "    ")) else " ".join(part.split()) for part in parts)


def code(text: object) -> str:
    """`text` as code; "" of nothing."""
    return f"`{text}`" if str(text) else ""
