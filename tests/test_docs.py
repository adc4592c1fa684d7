"""The documentation: its pages are short, name files that exist and use plain English."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from infra.reference.pages import DOCS, PAGES
from producers.fleet.camera_file import parse_camera_file
from tests.system.doc_commands import block_commands, check_mentions, span_commands

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
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
"""Pages that `tests/system/test_doc_commands.py` does not check."""
OPTION = re.compile(r"`(--[a-z][a-z-]*)")
FOREIGN = {"--command-config", "--enable-feature", "--short", "--web"}
"""Options of other programs and of benchmarks."""
YAML = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
WORDS = re.compile(
    r"\b(anew|whoever|whomever|thereof|till|beside|says?|said|tells?|told|hears?|heard)\b", re.IGNORECASE
)


def named_files(text: str) -> list[str]:
    """Return the paths of the repository in backticks; paths of a state folder or a device are left out."""
    folders = {each.name for each in ROOT.iterdir() if each.is_dir()}
    return [path for path in PATH.findall(text) if path.partition("/")[0] in folders]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: (DOCS / name).read_text() for name in WRITTEN}


def test_a_page_is_short_enough_to_be_read(texts: dict[str, str]) -> None:
    assert {name: len(text.splitlines()) for name, text in texts.items() if text.count("\n") > LONGEST_PAGE} == {}


def test_a_page_names_files_that_exist(texts: dict[str, str]) -> None:
    named = {name: named_files(text) for name, text in {**texts, "README": README.read_text()}.items()}
    assert [(name, path) for name, paths in named.items() for path in paths if not (ROOT / path).is_file()] == []


def test_a_page_is_plain_english(texts: dict[str, str]) -> None:
    found = []
    for name, text in {**texts, "README": README.read_text()}.items():
        lines = [line for line in CODE.sub("", text).splitlines() if not line.startswith("#")]
        found += [(name, word[0]) for line in lines for word in WORDS.finditer(line)]
    assert found == []


def test_a_guide_names_options_that_exist(texts: dict[str, str]) -> None:
    known = set(re.findall(r"--[a-z][a-z-]*", (DOCS / "reference" / "command-line.md").read_text())) | FOREIGN
    options = [(name, option) for name in GUIDES for option in OPTION.findall(texts[name])]
    assert [each for each in options if each[1] not in known] == []


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_prints_commands_that_exist(name: str) -> None:
    commands = [*span_commands(DOCS / name), *block_commands(DOCS / name)]
    for command in commands:
        if command.words[0] == "pointillist" and "…" not in command.words[-1]:
            check_mentions(command)


def test_the_examples_of_the_file_of_cameras_are_accepted(texts: dict[str, str], tmp_path: Path) -> None:
    for name in ("cameras.md", "tutorial.md"):
        examples = YAML.findall(texts[name])
        assert examples
        for example in examples:
            assert parse_camera_file(yaml.safe_load(example), tmp_path, "cameras.yaml")


def test_a_decision_fits_a_screen_and_begins_with_its_summary(texts: dict[str, str]) -> None:
    assert [name for name in DECISIONS if len(texts[name].splitlines()) > LONGEST_DECISION] == []
    heads = {name: re.findall(r"^## (.*)$", texts[name], re.MULTILINE) for name in DECISIONS}
    assert {name: found for name, found in heads.items() if found != SECTIONS} == {}


def test_each_term_of_the_glossary_is_unique_and_has_a_meaning_and_an_existing_file() -> None:
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


def test_the_citation_is_of_this_version_and_license() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert "The Pointillist maintainers" in (ROOT / "LICENSE").read_text()
    assert cited["authors"] == [{"name": "The Pointillist maintainers"}]
