"""The documentation site: every page is found, every link leads somewhere, and it asks no other host for anything."""

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
SHOWN = ("h1", "h2", "h3", "h4", "li", "table", "tr", "pre", "blockquote", "img")
"""What GitHub and the site must show as often."""

needs_zensical = pytest.mark.skipif(not PROGRAM.exists(), reason="zensical is not installed: make setup-dev")


def built(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of the `docs` in `folder`."""
    shutil.copy(ROOT / "zensical.toml", folder)
    command = [str(PROGRAM), "build", "--strict"]
    return subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    run = built(folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "build" / "site"


def in_nav(entry: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for each in entry if isinstance(entry, list) else entry.values():
            yield from in_nav(each)


def test_every_page_is_in_the_navigation_or_among_decisions_and_results() -> None:
    named = list(in_nav(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    assert [name for name, count in Counter(named).items() if count > 1] == []
    assert [name for name in named if not (DOCS / name).is_file()] == []
    assert [name for name in PAGES if name not in named and not name.startswith(("adr/", "results/"))] == []


def test_every_decision_is_in_the_index() -> None:
    said = (DOCS / "adr" / "README.md").read_text()
    assert [name for name in PAGES if re.match(r"adr/\d", name) and f"]({name.removeprefix('adr/')})" not in said] == []


def tokens(text: str) -> Iterator[Token]:
    """Of a page, with those inside its paragraphs."""
    for each in MarkdownIt("commonmark").enable("table").parse(text):
        yield each
        yield from each.children or ()


@cache
def tokens_of(name: str) -> list[Token]:
    """Of a page of `docs`."""
    return list(tokens((DOCS / name).read_text()))


def test_links_stay_in_docs_and_lead_to_files() -> None:
    """The site has no address of the repository: what lies outside of `docs` is named as `infra/systemd`, without a
    link."""
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
class Seen(HTMLParser):
    """What a page of the site loads, links to, and shows."""

    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    shown: Counter[str] = field(default_factory=Counter)
    inside: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.ids |= {given["id"]} if "id" in given else set()
        self.inside |= tag == "article"
        if self.inside and tag in SHOWN:
            self.shown[tag] += 1
        for name, value in given.items():
            if name == "href" and (tag == "a" or given.get("rel") in ("canonical", "next", "prev")):
                self.links.append(value)
            elif name in ("src", "srcset", "href", "data", "poster", "action"):
                self.loads.append(value)
            elif name == "style":
                self.loads += re.findall(r"url\(([^)]*)\)", value)
        assert "mermaid" not in given.get("class", ""), "a diagram of mermaid is drawn by a script of another host"

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "article"


def seen(file: Path) -> Seen:
    parser = Seen()
    parser.feed(file.read_text(encoding="utf-8"))
    return parser


def place_of(name: str) -> str:
    """Where the site has a page of `docs`."""
    return re.sub(r"(^|/)README\.md$", r"\1index.md", name).removesuffix(".md") + ".html"


@needs_zensical
def test_no_page_loads_anything_of_another_host(site: Path) -> None:
    for file in site.rglob("*.html"):
        assert [each for each in seen(file).loads if urlsplit(each).netloc] == [], file.name
    for file in site.rglob("*.css"):
        asked = re.findall(r"url\([\"']?([^)\"']*)|@import\s+[\"']([^\"']*)", file.read_text(encoding="utf-8"))
        assert [each for pair in asked for each in pair if urlsplit(each).netloc] == [], file.name
    # The theme asks its host for stars where a repository is named, and for fonts unless they are turned off.
    settings = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    assert settings["theme"]["font"] is False
    assert "repo_url" not in settings
    assert "plugins" not in settings


@needs_zensical
def test_the_site_shows_what_github_shows(site: Path) -> None:
    """A list without an empty line before it, for one, is none on the site."""
    for name in PAGES:
        opened = [each for each in tokens_of(name) if each.nesting >= 0]
        tags = ["pre" if each.type in ("fence", "code_block") else each.tag for each in opened]
        assert seen(site / place_of(name)).shown == Counter(tag for tag in tags if tag in SHOWN), name
