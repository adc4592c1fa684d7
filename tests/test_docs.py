"""The documentation: its pages are short, name files that exist and use plain English."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra.reference.pages import DOCS, PAGES
from tests.system.doc_commands import block_commands, check_mentions, span_commands

ROOT = Path(__file__).parents[1]
LONGEST_PAGE = 300
"""Lines of a page that a person reads to its end."""
LONGEST_DECISION = 66
"""Lines of a decision: one screen."""
WRITTEN = sorted(
    name
    for name in (file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md"))
    if name not in PAGES and not name.startswith("results/") and name != "capacity.md"
)
"""Pages below `docs` that people write: neither generated nor results."""
DECISIONS = [name for name in WRITTEN if re.match(r"adr/\d", name)]
SECTIONS = ["Summary", "Context", "Decision", "Consequences", "What would change it"]
SUFFIXES = ("py", "md", "proto", "toml", "yml", "yaml", "json", "csv", "sh", "in", "service", "timer", "txt", "html")
PATH = re.compile(rf"`((?:[\w.-]+/)+[\w.-]+\.(?:{'|'.join(SUFFIXES)}))`")
GUIDES = [name for name in WRITTEN if not name.startswith(("adr/", "howto/")) and name != "tutorial.md"]
"""Pages besides those whose commands `tests/system/test_doc_commands.py` checks."""
OPTION = re.compile(r"`(--[a-z][a-z-]*)")
FOREIGN = {"--enable-feature", "--short", "--web"}
"""Options of other programs and of benchmarks."""
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
WORDS = re.compile(
    r"\b(anew|whoever|whomever|thereof|till|beside|says?|said|tells?|told|hears?|heard)\b", re.IGNORECASE
)


def named_files(text: str) -> list[str]:
    """Return the paths of the repository in backticks; paths of a state folder or a device are left out."""
    folders = {each.name for each in ROOT.iterdir() if each.is_dir()}
    return [path for path in PATH.findall(text) if path.partition("/")[0] in folders]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_page_is_short_enough_to_be_read(name: str) -> None:
    assert len((DOCS / name).read_text().splitlines()) <= LONGEST_PAGE


@pytest.mark.parametrize("name", ["../README.md", *WRITTEN])
def test_a_page_names_files_that_exist(name: str) -> None:
    text = (DOCS / name).read_text()
    assert [path for path in named_files(text) if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("name", ["../README.md", *WRITTEN])
def test_a_page_is_plain_english(name: str) -> None:
    lines = CODE.sub("", (DOCS / name).read_text()).splitlines()
    assert [word[0] for line in lines if not line.startswith("#") for word in WORDS.finditer(line)] == []


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_names_options_that_exist(name: str) -> None:
    known = set(re.findall(r"--[a-z][a-z-]*", (DOCS / "reference" / "command-line.md").read_text())) | FOREIGN
    assert [option for option in OPTION.findall((DOCS / name).read_text()) if option not in known] == []


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_prints_commands_that_exist(name: str) -> None:
    commands = [*span_commands(DOCS / name), *block_commands(DOCS / name)]
    for command in commands:
        if command.words[0] == "pointillist" and "…" not in command.words[-1]:
            check_mentions(command)


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_fits_a_screen_and_begins_with_its_summary(name: str) -> None:
    text = (DOCS / name).read_text()
    assert len(text.splitlines()) <= LONGEST_DECISION
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS


def test_each_term_of_the_glossary_stands_once_with_a_sentence_and_a_file_that_exists() -> None:
    lines = (DOCS / "reference" / "glossary.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    terms = [row for row in rows if row[0] != "term" and not row[0].startswith("---")]
    assert len(terms) >= 60
    assert len({term for term, _, _ in terms}) == len(terms)
    assert [term for term, meaning, _ in terms if not meaning] == []
    assert [place for _, _, place in terms if not (ROOT / place.strip("`")).is_file()] == []


def test_a_path_in_backticks_is_found() -> None:
    text = (
        "`schemas/messages/frame.py`, `docs/gone.md`, `out/model.toml`, `frame.py`, `schemas/`, [x](schemas/errors.py)"
    )
    assert named_files(text) == ["schemas/messages/frame.py", "docs/gone.md"]
