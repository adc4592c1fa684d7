"""Markdown of the reference pages."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

MADE: Final = "<!-- Made by `python -m infra.reference`; a test compares it with the code. -->"
"""The note below the title of every generated page."""


def page(title: str, *parts: str) -> str:
    """Join a page from its parts, which are paragraphs, tables and headings; empty ones are left out."""
    blocks = [block for part in parts for block in part.strip("\n").split("\n\n") if block]
    return "\n\n".join([f"# {title}", MADE, *map(_filled, blocks)]) + "\n"


def _filled(block: str) -> str:
    """Wrap a paragraph in lines of at most 140; other parts stay as they are."""
    if block.startswith(("|", "#", "- ", "<", "```", "    ")):
        return block
    return textwrap.fill(block, 140, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; "" without rows."""
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines]) if lines else ""


def paragraphs(text: str | None) -> str:
    """Return all paragraphs of a docstring, each on one line; lists keep their lines."""
    parts = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(part if part.startswith(("- ", "    ")) else " ".join(part.split()) for part in parts)


def code(text: object) -> str:
    """Return `text` as code; "" for an empty text."""
    return f"`{text}`" if str(text) else ""
