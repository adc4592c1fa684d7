"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table, or an empty text if it has no lines."""
    body = [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *lines)]
    return "\n".join(body) if len(body) > 2 else ""
