"""The plan of the attack through the codec."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from lab.experiments.harness.cell import Cell, Tables
from lab.experiments.harness.page import write_page
from lab.experiments.harness.plan import Plan, Workplace
from lab.experiments.video.measure import AttackRow, attacked
from lab.experiments.video.report import page
from processors.bundle import Bundle, load_bundle, shipped_bundle

NAME: Final = "video"
TABLES: Final = {"attacked": AttackRow}
SCENES: Final = {"scene": 200, "scene-plain": 50}
"""Scenes by the name of the bundle."""
TOGETHER: Final = 10
"""Scenes of a cell."""
_CODE: Final = "lab.experiments.video.measure:attacked"
_SECONDS: Final = 11
"""Cost of a scene."""


def plan(place: Workplace) -> Plan:
    """Return the fleet's network, then the plain one, some scenes at a time."""
    cells = [
        _cell(name, first, min(TOGETHER, count - first))
        for name, count in SCENES.items()
        for first in range(0, count, TOGETHER)
    ]
    store = place.store(NAME)

    def write() -> list[str]:
        write_page(store.folder / "attack.md", page(store.records("attacked", AttackRow)))
        return []

    return Plan(NAME, TABLES, tuple(cells), store, write)


def _cell(name: str, first: int, count: int) -> Cell:
    folder = shipped_bundle(name)

    def measure() -> Tables:
        return {"attacked": attacked(_loaded(folder), name, first, count)}

    return Cell(f"{name}/attacked/{first}", (_CODE,), measure, (first, count), (folder,), _SECONDS * count)


def _loaded(folder: Path) -> Bundle:
    return load_bundle(folder, torch.device("cpu"))
