"""The tables with stale rows, as a file that the pages of results read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.experiments.harness.plan import MISSING, Plan
from lab.experiments.harness.queue import Stale


def write_stale_tables(file: Path, plans: Iterable[Plan], stale: Sequence[Stale]) -> None:
    """Write, for each experiment, its published and stale rows, and its tables with a stale row."""
    document = {}
    for plan in plans:
        rows = plan.store.rows()
        mine = {each.cell.name for each in stale if each.plan.name == plan.name and each.why != MISSING}
        tables = sorted({table for name in mine for table in rows[name].tables})
        planned = {cell.name for cell in plan.cells}
        document[plan.name] = {
            "published": len(rows), "stale": len(mine), "not_planned": len(set(rows) - planned), "stale_tables": tables,
        }  # fmt: skip
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
