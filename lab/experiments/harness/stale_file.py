"""The published rows that are stale, as a file that the pages of results read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.experiments.harness.plan import MISSING, Plan
from lab.experiments.harness.queue import Stale


def write_stale_file(file: Path, plans: Iterable[Plan], stale: Sequence[Stale]) -> None:
    """Write for each experiment the number of its published rows, and the names of the stale ones among them."""
    document = {}
    for plan in plans:
        rows = plan.store.rows()
        planned = {cell.name for cell in plan.cells}
        document[plan.name] = {
            "published": len(rows),
            "not_planned": len(set(rows) - planned),
            "stale": sorted(each.cell.name for each in stale if each.plan.name == plan.name and each.why != MISSING),
        }
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
