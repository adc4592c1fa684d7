"""The queue: rows that are missing or were made by other code or from other inputs, measured one at a time.

The queue has no state of its own: the stored rows and the current code determine the stale rows. After a kill, finished
rows stay valid, and the interrupted row resumes from the checkpoints in its cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from lab.experiments.harness.cell import Cell
from lab.experiments.harness.plan import Plan, staleness
from lab.only_process import only_process
from schemas.runtime.priority import lower_priority

LOCK: Final = "queue.lock"


@dataclass(frozen=True)
class Stale:
    """A row to measure."""

    plan: Plan
    cell: Cell
    why: str
    seconds: float
    """Estimated cost: the seconds of the stored row if there is one, else the plan's estimate."""


def stale_rows(plans: Iterable[Plan]) -> list[Stale]:
    """Return the stale rows of all plans in the order of their worth: every plan's first cells, then the second ones.

    Of cells at the same place, those of earlier plans come first.
    """
    found = list[tuple[int, int, Stale]]()
    for order, plan in enumerate(plans):
        rows = plan.store.rows()
        for place, cell in enumerate(plan.cells):
            why = staleness(cell, rows)
            if why:
                taken = rows[cell.name].made.seconds if cell.name in rows else None
                found.append((place, order, Stale(plan, cell, why, cell.seconds if taken is None else taken)))
    return [each for _, _, each in sorted(found, key=lambda each: each[:2])]


def affordable(stale: Sequence[Stale], hours: float | None) -> list[Stale]:
    """Return the rows that fit into `hours`, in order. Skip a row that does not fit; cheaper ones may follow."""
    if hours is None:
        return list(stale)
    chosen, left = list[Stale](), 3600 * hours
    for each in stale:
        if each.seconds <= left:
            chosen.append(each)
            left -= each.seconds
    return chosen


def measure(stale: Sequence[Stale], command: str, report: Callable[[str], None], hours: float | None = None) -> int:
    """Measure the rows, and write the page after each; return the number of rows that failed.

    After `hours` no further row begins. A row that fails is reported, and the queue continues with the next one.
    """
    begun, failed = time.monotonic(), 0
    for number, each in enumerate(stale, start=1):
        if hours is not None and time.monotonic() - begun >= 3600 * hours:
            report(f"{len(stale) - number + 1} rows left: the time is over")
            break
        what = f"{number} of {len(stale)}: {each.plan.name}, {each.cell.name}"
        report(f"{what}: {each.why}, about {each.seconds / 60:.0f} min")
        try:
            row = each.plan.measure(each.cell, command)
            each.plan.write_page()
        except Exception as error:  # one row must not stop the others
            failed += 1
            report(f"{what}: failed: {error!r}")
            continue
        report(f"{what}: measured in {row.made.seconds:.0f} s")
    return failed


def only_queue(runs: Path) -> AbstractContextManager[None]:
    """Hold the lock of the queue that works in `runs`. Raises ConfigError if another process holds it."""
    return only_process(runs / LOCK, "queue")


def yield_to_others() -> None:
    """Lower the priority of this process to the least, and compute on one thread."""
    lower_priority()
    torch.set_num_threads(1)
