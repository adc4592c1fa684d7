"""The documentation site: complete navigation, valid links, and no requests to other hosts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md"))
PROGRAM = Path(sys.executable).with_name("zensical")
COUNTED_TAGS = ("h1", "h2", "h3", "h4", "li", "table", "tr", "pre", "blockquote", "img")
"""Tags that must appear on the site as often as on GitHub."""

pytestmark = pytest.mark.xdist_group(__name__)  # the tests share parsed pages
needs_zensical = pytest.mark.skipif(not PROGRAM.exists(), reason="zensical is not installed: make setup-dev")


def build_site(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of the `docs` in `folder`."""
    shutil.copy(ROOT / "zensical.toml", folder)
    command = [str(PROGRAM), "build", "--strict"]
    return subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    run = build_site(folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "build" / "site"


def in_nav(entry: Any) -> Iterator[str]:
    """Yield the pages of a part of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for each in entry if isinstance(entry, list) else entry.values():
            yield from in_nav(each)


def test_every_page_is_in_the_navigation_except_decisions_and_results() -> None:
    named = list(in_nav(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    assert [name for name, count in Counter(named).items() if count > 1] == []
    assert [name for name in named if not (DOCS / name).is_file()] == []
    assert [name for name in PAGES if name not in named and not name.startswith(("adr/", "results/"))] == []


def test_every_decision_is_in_the_index() -> None:
    index = (DOCS / "adr" / "README.md").read_text()
    assert [
        name for name in PAGES if re.match(r"adr/\d", name) and f"]({name.removeprefix('adr/')})" not in index
    ] == []


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a page, including those inside its paragraphs."""
    for each in MarkdownIt("commonmark").enable("table").parse(text):
        yield each
        yield from each.children or ()


@cache
def tokens_of(name: str) -> list[Token]:
    """Return the tokens of a page of `docs`."""
    return list(tokens((DOCS / name).read_text()))


def test_links_lead_to_files_of_docs() -> None:
    """Reject links out of `docs`: the site does not know the repository's address, and names such files as code."""
    wrong = []
    for name, token in [(page, token) for page in PAGES for token in tokens_of(page)]:
        target = str(token.attrGet("href") or token.attrGet("src") or "")
        parts = urlsplit(target)
        if parts.scheme or not parts.path:
            continue
        file = ((DOCS / name).parent / unquote(parts.path)).resolve()
        if not file.is_relative_to(DOCS) or not file.is_file():
            wrong.append((name, target))
    assert wrong == []


@dataclass
class PageContents(HTMLParser):
    """The resources, links, ids and counted tags of a page of the site."""

    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    shown: Counter[str] = field(default_factory=Counter)
    inside: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.ids |= {values["id"]} if "id" in values else set()
        self.inside |= tag == "article"
        if self.inside and tag in COUNTED_TAGS:
            self.shown[tag] += 1
        for name, value in values.items():
            if name == "href" and (tag == "a" or values.get("rel") in ("canonical", "next", "prev")):
                self.links.append(value)
            elif name in ("src", "srcset", "href", "data", "poster", "action"):
                self.loads.append(value)
            elif name == "style":
                self.loads += re.findall(r"url\(([^)]*)\)", value)
        assert "mermaid" not in values.get("class", ""), "a diagram of mermaid is drawn by a script of another host"

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "article"


@cache
def contents_of(file: Path) -> PageContents:
    """Return the contents of a page of the site."""
    parser = PageContents()
    parser.feed(file.read_text(encoding="utf-8"))
    return parser


def site_path(name: str) -> str:
    """Return the path on the site of a page of `docs`."""
    return re.sub(r"(^|/)README\.md$", r"\1index.md", name).removesuffix(".md") + ".html"


@needs_zensical
def test_no_page_loads_a_resource_from_another_host(site: Path) -> None:
    for file in site.rglob("*.html"):
        assert [each for each in contents_of(file).loads if urlsplit(each).netloc] == [], file.name
    for file in site.rglob("*.css"):
        urls = re.findall(r"url\([\"']?([^)\"']*)|@import\s+[\"']([^\"']*)", file.read_text(encoding="utf-8"))
        assert [each for pair in urls for each in pair if urlsplit(each).netloc] == [], file.name
    # The theme would request stars if a repository were configured, and fonts unless they are turned off.
    settings = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    assert settings["theme"]["font"] is False
    assert "repo_url" not in settings
    assert "plugins" not in settings


@needs_zensical
def test_the_site_renders_the_same_elements_as_github(site: Path) -> None:
    """Find differences such as a list without an empty line before it, which the site shows as text."""
    for name in PAGES:
        opened = [each for each in tokens_of(name) if each.nesting >= 0]
        tags = ["pre" if each.type in ("fence", "code_block") else each.tag for each in opened]
        assert contents_of(site / site_path(name)).shown == Counter(tag for tag in tags if tag in COUNTED_TAGS), name
