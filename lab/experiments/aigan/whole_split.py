"""The success of the generators on the whole test split, as the record of their training states it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from lab.statistics import Interval, wilson

ROOT: Final = Path(__file__).parents[3]
TEST_PICTURES: Final = 10_000
_FOLDERS: Final = ("lab/aigan/models", "bundles/generators")
_RECORD: Final = re.compile(rf"{TEST_PICTURES} pictures, \w+ test: targeted success ([0-9.]+) at")


def whole_split(task: str, knowledge: str, root: Path = ROOT) -> Interval | None:
    """Return the share of all test pictures with Wilson's interval; None if no record of a training states it."""
    name = f"{task}-black-box" if knowledge == "black-box" else task
    for folder in _FOLDERS:
        record = root / folder / name / "training.md"
        found = _RECORD.search(record.read_text(encoding="utf-8")) if record.is_file() else None
        if found:
            return wilson(round(float(found[1]) * TEST_PICTURES), TEST_PICTURES)
    return None
