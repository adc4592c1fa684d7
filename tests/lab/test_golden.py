"""The golden batch and the ledger: rows stay current if a change alters no output, and become stale otherwise."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lab.experiments.harness.ledger import Pair, append, is_harmless, read
from lab.golden.changes import traced, uncovered
from lab.golden.parts import PARTS, computed, deviations, stored
from lab.provenance import PACKAGES, Repository
from schemas.errors import ConfigError

ROOT = Path(__file__).parents[2]
QUICK = tuple(part for part in PARTS if part.name in ("judge", "gradient", "attacks"))
CODE = ("lab.chance:seeded",)


def test_the_chain_its_gradient_and_the_attacks_return_the_stored_outputs() -> None:
    assert deviations(computed(QUICK), stored(), QUICK) == {}


def test_a_changed_output_is_named_and_the_rounding_of_a_processor_is_ignored() -> None:
    expected = stored()
    rounded = {name: (values * np.float16(1.001)).astype(np.float16) for name, values in expected.items()}
    assert deviations(rounded, expected, QUICK) == {}
    other = {**expected, "judge/cifar10": expected["judge/cifar10"] + np.float16(0.01)}
    assert deviations(other, expected) == {"judge": "judge/cifar10: 100.0% of the values deviate by more than 0.004"}
    missing = {name: values for name, values in expected.items() if name != "strip/bits"}
    assert deviations(missing, expected) == {"strip": "strip/bits: expected (16,), got nothing"}


def test_pairs_of_the_same_code_form_chains(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    assert read(file) == []
    first, second = Pair(CODE, "a", "b", "golden batch"), Pair(CODE, "b", "c", "golden batch")
    append([first, second], file)
    append([first], file)
    assert read(file) == [first, second]
    assert is_harmless(CODE, "a", "c", read(file))
    assert not is_harmless(CODE, "c", "a", read(file))
    assert not is_harmless(("lab.chance",), "a", "c", read(file))
    assert not is_harmless(CODE, "a", "c", [first, replace(second, code=("lab.chance",))])
    file.write_text("{}\n")
    with pytest.raises(ConfigError, match="line 1: expected a pair, got KeyError"):
        read(file)


OLDER = """
LIMIT = 3
SPARE = 1

class Settings:
    kept: int = 1

def used(value: int) -> int:
    if value > LIMIT:
        value = value - 1
    return value

def unused(value: int) -> int:
    return value + SPARE + Settings().kept

def caught(given: int) -> int:
    try:
        return given
    except KeyError:
            return 1

def chosen(given: int) -> int:
    return 0 if given else 2

def matched(given: int) -> int:
    match given:
        case 1:
            return 4
        case _:
            return 5

def entry(value: int) -> int:
    if value < 0:
        return unused(value)
    return used(value) + caught(value) + chosen(value) + matched(value)
"""


def checkout(root: Path, text: str) -> Repository:
    for name in PACKAGES:
        (root / name).mkdir(parents=True)
    (root / "lab" / "small.py").write_text(text)
    return Repository(root)


@pytest.mark.parametrize(
    ("change", "uncovered_places"),
    [
        (("return value\n", "return value + 0\n"), []),
        (("LIMIT = 3", "LIMIT = 2"), []),
        (("    return value\n", "    if value > 9:\n        raise ValueError\n    return value\n"), []),
        (("SPARE = 1", "SPARE = 2"), ["lab/small.py:SPARE"]),
        (("    kept: int = 1\n", "    kept: int = 1\n    more: int = 2\n"), []),
        (("    kept: int = 1\n", "    kept: int = 1\n    more: int = LIMIT\n"), ["lab/small.py:Settings"]),
        (("    kept: int = 1\n", "    kept: int = 1\n    more: tuple[int, ...] = (-1, 2)\n"), []),
        (("    kept: int = 1\n", "    kept: int = 1\n    more: int = max(2, 3)\n"), []),
        (("    kept: int = 1\n", "    kept: int = 1\n    more: int = max(2, LIMIT)\n"), ["lab/small.py:Settings"]),
        (("    kept: int = 1\n", "    kept: int = 2\n"), ["lab/small.py:Settings"]),
        (("value + SPARE", "value - SPARE"), ["lab/small.py:unused"]),
        (("value = value - 1", "value = value - 2"), ["lab/small.py:used"]),
        # A line that moves into a branch, or out of one.
        (("value - 1\n    return value", "value - 1\n        return value\n    return 1"), ["lab/small.py:used"]),
        (("    if value > LIMIT:\n        value = value - 1\n", ""), []),
        (("        value = value - 1\n", "        pass\n"), ["lab/small.py:used"]),
        (("            return 1\n", "            return 3\n"), ["lab/small.py:caught"]),
        (("except KeyError", "except ValueError"), ["lab/small.py:caught"]),
        (("return 0 if given else 2", "return 0 if given else 3"), ["lab/small.py:chosen"]),
        (("            return 5\n", "            return 6\n"), ["lab/small.py:matched"]),
        (("            return 4\n", "            return 2 + 2\n"), []),
        (("            return 4\n", "            other = 4\n            return other\n"), []),
    ],
)  # fmt: skip
def test_a_change_is_covered_if_each_new_line_is_executed(
    tmp_path: Path, change: tuple[str, str], uncovered_places: list[str]
) -> None:
    older, newer = checkout(tmp_path / "older", OLDER), checkout(tmp_path / "newer", OLDER.replace(*change))
    file = newer.root / "lab" / "small.py"
    space: dict[str, object] = {}
    exec(compile(file.read_text(), str(file), "exec"), space)
    _, lines = traced(lambda: space["entry"](1), newer)  # type: ignore[operator]  # a function, by its text
    entries = ("lab.small:entry",)
    assert older.digest(*entries) != newer.digest(*entries)
    assert [each.place for each in uncovered(older, newer, entries, lines)] == uncovered_places


def test_exchanged_function_bodies_and_a_renamed_callee_are_changes(tmp_path: Path) -> None:
    text = "def low():\n    return 1\n\ndef high():\n    return 2\n\ndef entry():\n    return low() if high() else 0\n"
    older = checkout(tmp_path / "older", text)
    exchanged = checkout(tmp_path / "exchanged", text.replace("1", "3").replace("2", "1").replace("3", "2"))
    renamed = checkout(tmp_path / "renamed", text.replace("low", "least"))
    entries = ("lab.small:entry",)
    found = uncovered(older, exchanged, entries, {})
    assert {each.place for each in found} == {"lab/small.py:low", "lab/small.py:high"}
    # The caller refers to another place.
    assert [each.place for each in uncovered(older, renamed, entries, {})] == ["lab/small.py:entry"]


@pytest.mark.parametrize(
    ("change", "uncovered_places"),
    [({}, []), ({"a.txt": "2"}, ["a.txt"]), ({"a.txt": None}, ["a.txt"]), ({"b.txt": "1"}, ["b.txt"])],
)
def test_a_data_file_that_is_changed_removed_or_added_is_not_covered(
    tmp_path: Path, change: dict[str, str | None], uncovered_places: list[str]
) -> None:
    text = OLDER + "\ndef read():\n    with as_file(files('bundles') / 'small') as folder:\n        return folder\n"
    before: dict[str, str | None] = {"a.txt": "1"}
    older, newer = checkout(tmp_path / "older", text), checkout(tmp_path / "newer", text)
    for each, files in ((older, before), (newer, before | change)):
        folder = each.root / "bundles" / "small"
        folder.mkdir()
        for name, content in files.items():
            if content is not None:
                (folder / name).write_text(content)
    found = uncovered(older, newer, ("lab.small:read",), {})
    assert [each.place for each in found] == [f"bundles/small/{name}" for name in uncovered_places]


def test_each_csv_of_the_results_is_listed_as_not_made_by_the_harness() -> None:
    found = subprocess.run(
        ["git", "ls-files", "docs/results/*.csv"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    section = (ROOT / "docs" / "results" / "README.md").read_text().partition("## Not made by the harness")[2]
    listed = [re.compile(name.replace("*", "[^/]+")) for name in re.findall(r"`([^`]+\.csv)`", section)]
    assert found
    assert [
        name for name in found if not any(each.fullmatch(name.removeprefix("docs/results/")) for each in listed)
    ] == []
