"""The page of runbooks for Prometheus: docs/runbooks.md as HTML, with an anchor named after each alert."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parents[2] / "docs" / "runbooks.md"
CONSOLES: Final = Path(__file__).parent / "consoles"
PAGE: Final = CONSOLES / "runbooks.html"

_HEADING: Final = re.compile(r"<h3>(\w+)</h3>")
_ELSEWHERE: Final = re.compile(r'<a href="(?!https?:)[^"]*">(.*?)</a>')
_STYLE: Final = (
    ":root{color-scheme:light dark}body{max-width:46rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui}"
    "h3:target{border-left:.3rem solid;padding-left:.6rem}td{vertical-align:top;padding:.2rem .6rem .2rem 0}"
    ".scroll{overflow-x:auto}"
)


def rendered(markdown: str) -> str:
    """Return the page. Links to other pages of the documentation become plain words: those pages are not served."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(markdown)
    body = _HEADING.sub(lambda found: f'<h3 id="{found[1].lower()}">{found[1]}</h3>', body)
    body = _ELSEWHERE.sub(r"\1", body)
    body = body.replace("<table>", '<div class="scroll" tabindex="0"><table>').replace("</table>", "</table></div>")
    title = html.escape(markdown.splitlines()[0].removeprefix("# "))
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Pointillist: {title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}</body>\n</html>\n"
    )
