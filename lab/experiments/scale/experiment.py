"""The plan of the experiment on the network's scale, and its page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import torch

from lab.experiments.harness.cell import Cell, Tables
from lab.experiments.harness.page import Column, table, write_page
from lab.experiments.harness.plan import Plan, Workplace
from lab.experiments.scale.measure import CONDITIONS, LARGE, SIZES, WHOLE, Cost, Row, costs, measure
from processors.bundle import load_bundle, shipped_bundle
from processors.pipeline import Pipeline

NAME: Final = "scale"
TABLES: Final = {"accuracy": Row, "costs": Cost}
_CODE: Final = "lab.experiments.scale.measure"


def ratio_text(row: Row) -> str:
    """Return the ratio of a row with its interval of 95 %; a dash where the chain itself rebuilds frames whole."""
    if row.way == WHOLE:
        return "–"
    return f"{row.ratio:.3f} [{row.ratio_low:.3f}, {row.ratio_high:.3f}]"


ACCURACY: Final[tuple[Column[Row], ...]] = (
    Column("scenes", lambda row: f"{row.scenes}{', ' + row.attack if row.attack else ''}"),
    Column("frame", lambda row: f"{row.width}×{row.height}"),
    Column("r", lambda row: f"{row.drop:g}"),
    Column("n", lambda row: str(row.frames)),
    Column("nothing dropped", lambda row: f"{row.undropped:.3f}"),
    Column("rebuilt whole", lambda row: f"{row.whole:.3f}"),
    Column("chain", lambda row: f"{row.chain:.3f} ({row.way})"),
    Column("chain ÷ whole [95 %]", ratio_text),
    Column("at scale, filled", lambda row: f"{row.filled:.3f}"),
    Column("at scale, restored", lambda row: f"{row.restored:.3f}"),
    Column("whole, ms", lambda row: f"{row.whole_ms:.1f}"),
    Column("chain, ms", lambda row: f"{row.chain_ms:.1f}"),
)
COSTS: Final[tuple[Column[Cost], ...]] = (
    Column("network's input", lambda cost: cost.input),
    Column("r", lambda cost: f"{cost.drop:g}"),
    Column("resampled and filled, ms", lambda cost: f"{cost.resampled_and_filled_ms:.1f}"),
    Column("reconstruction network at scale, ms", lambda cost: f"{cost.restorer_ms:.1f}"),
    Column("rebuilt whole, ms", lambda cost: f"{cost.whole_ms:.0f}"),
    Column("a network", lambda cost: cost.network),
    Column("ms", lambda cost: f"{cost.network_ms:.1f}"),
)


def plan(place: Workplace) -> Plan:
    """Every kind of scene at each size, then the costs."""
    store, bundle = place.store(NAME), shipped_bundle("scene-plain")
    cells = []
    for scenes in CONDITIONS:
        for size, counts in SIZES.items():
            attacked = scenes != "hard"
            count = counts[attacked]
            work = partial(_accuracy, scenes, size, count, attacked)
            settings = (scenes, size, count, attacked)
            name = f"{scenes}/{size[1]}x{size[0]}"
            cells.append(Cell(name, (f"{_CODE}:measure",), work, settings, (bundle,), 120 if attacked else 60))
    cells.append(Cell("costs", (f"{_CODE}:costs",), lambda: {"costs": list(costs())}))

    def write() -> list[str]:
        write_page(store.folder / "README.md", page(store.records("accuracy", Row), store.records("costs", Cost)))
        return []

    return Plan(NAME, TABLES, tuple(cells), store, write)


def _accuracy(scenes: str, size: tuple[int, int], count: int, attacked: bool) -> Tables:
    pipeline = Pipeline(load_bundle(shipped_bundle("scene-plain"), torch.device("cpu")))
    return {"accuracy": list(measure(pipeline, scenes, size, count, attacked))}


def page(rows: Sequence[Row], parts: Sequence[Cost]) -> list[str]:
    """Return the parts of the page."""
    sums = []
    for what, attack in (("clean", False), ("under PGD", True)):
        for size, is_large in (("64 to 96 lines", False), ("240 lines and more", True)):
            some = [
                row
                for row in rows
                if bool(row.attack) is attack and (row.height >= LARGE) is is_large and row.way != WHOLE
            ]
            if some:
                ours, theirs = (sum(getattr(row, name) * row.frames for row in some) for name in ("chain", "whole"))
                count = sum(row.frames for row in some)
                sums.append(f"{size}, {what}: chain ÷ whole {ours / theirs:.4f} over {count:,} frames.")
    return [
        "# The chain at the network's scale",
        f"Made by `pointillist lab stale --only {NAME} --run`, with the plain scene network (32×32) on one thread. "
        "Columns are explained in `lab/experiments/scale/measure.py`, the rule in ADR 16. Sums leave out frames that "
        "the chain itself rebuilds whole.",
        *sums,
        table(ACCURACY, rows),
        "Of a 768×432 frame, one thread:",
        table(COSTS, parts),
    ]
