"""The plan of the experiment on quantised inputs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch

from lab.backdoor.tasks import Task, load_task
from lab.experiments import cells
from lab.experiments.cells import Attack, Scored, Scores
from lab.experiments.harness.cell import Cell, Tables
from lab.experiments.harness.plan import Plan, Workplace
from lab.experiments.qusecnets import attacked
from lab.experiments.qusecnets.judges import Judge
from lab.experiments.qusecnets.network import NETWORKS
from lab.experiments.qusecnets.plan import GRID, GRID_ROWS, MAINS, WHOLE, WHOLE_ROWS, AttackRow, Budget
from lab.experiments.qusecnets.report import Network, write_report
from lab.experiments.qusecnets.residual import LIKE, RESIDUAL
from lab.experiments.qusecnets.steepness import (
    BASE,
    HELD_OUT,
    PICTURES,
    STEEP,
    TEST,
    Point,
    at_steepness,
    chosen,
    curve,
)
from lab.experiments.qusecnets.training import SHIPPED, code_of, trained, work_of
from processors.bundle import load_bundle

NAME: Final = "qusecnets"
COMMAND: Final = f"pointillist lab stale --only {NAME} --run"
TABLES: Final = {**cells.TABLES, "steepness": Point, "networks": Network}
ORDER: Final = tuple(dict.fromkeys((RESIDUAL.name, *MAINS, "mnist-tq2", STEEP, *NETWORKS)))
"""Networks, the most important first. Networks that do not ship come last, and are trained before their rows."""
_CODE: Final = "lab.experiments.qusecnets"
_TRAINING_SECONDS: Final = 600
_TEST_PICTURES: Final = 10_000
"""Number of pictures in the test split of MNIST."""
_WORST: Final = "worst"


def plan(place: Workplace, budget: Budget | None = None) -> Plan:
    """Return the plan: the training and the rows of every network, then the curve over the steepness of the layer."""
    planned = budget or Budget()
    laboratory = Laboratory(place, planned)
    whole = Laboratory(place, replace(planned, images=_TEST_PICTURES, step_images=_TEST_PICTURES))
    store = place.store(NAME)
    every = [cell for name in ORDER for cell in (laboratory.network(name), *laboratory.scored(name))]
    every += [cell for name in (RESIDUAL.name, *WHOLE) for cell in whole.scored(name, WHOLE_ROWS)]
    every.append(laboratory.steepness())
    every += [cell for name in GRID for cell in laboratory.scored(name, GRID_ROWS)]
    return Plan(NAME, TABLES, tuple(every), store, lambda: write_report(store))


class Laboratory:
    """The networks and pictures of the experiment. They are loaded when the first cell is measured."""

    def __init__(self, place: Workplace, budget: Budget) -> None:
        self.place = place
        self.budget = budget
        self.cache = place.cache(NAME)
        self.task = cache(self._task)
        self.judge = cache(self._judge)

    def network(self, name: str) -> Cell:
        """Return the cell of the network: its training, unless it ships."""

        def measure() -> Tables:
            return {"networks": [Network(name, self.judge(name).bundle.model_id, COMMAND)]}

        code, files, shipped = self._made_from(name)
        seconds = 10 if shipped else _TRAINING_SECONDS
        return Cell(f"{name}/network", (*code, f"{_CODE}.steepness:at_steepness"), measure, name, files, seconds)

    def scored(self, name: str, rows: tuple[AttackRow, ...] | None = None) -> list[Cell]:
        """Return the cells of the attacks on a network: the planned ones, or those of `rows`."""
        found = list[Scored]()
        for row in rows or self.budget.rows({STEEP: BASE, RESIDUAL.name: LIKE}.get(name, name)):
            found.append(self._scored(name, row, list(found)))
        return [each.cell for each in found]

    def _scored(self, name: str, row: AttackRow, others: list[Scored]) -> Scored:
        def score() -> Scores:
            if row.key == _WORST:
                return worst(others, row, self.budget)
            return attacked.scores(self.judge(name), row, self.budget, self.judge(plain_of(name)))

        code, files, _ = self._made_from(name)
        plain_code, plain_files, _ = self._made_from(plain_of(name))
        entry = f"{__name__}:worst" if row.key == _WORST else f"{_CODE}.attacked:scores"
        entries = dict.fromkeys((f"{_CODE}.attacked:scores", entry, *code, *plain_code))
        data = self.place.data_set(data_of(name))
        key = Attack(name, name.partition("-")[2], row.key, row.label, row.targeted, row.eps)
        seconds = 150 if row.slow else 20 if row.steps else 5
        return Scored(
            key, tuple(entries), score, (row, self.budget), tuple(dict.fromkeys((*files, *plain_files, data))),
            5 if row.key == _WORST else seconds, self.budget.seed, self.cache,
        )  # fmt: skip

    def steepness(self) -> Cell:
        """Return the cell of the accuracy over the steepness of the layer."""

        def measure() -> Tables:
            count = min(PICTURES, self.budget.step_images)
            return {"steepness": [*self._held_out(), *self._curve(TEST, count)]}

        files = (SHIPPED / BASE, SHIPPED / plain_of(BASE), self.place.data_set(data_of(BASE)))
        return Cell(
            f"{STEEP}/steepness", (f"{_CODE}.steepness:curve",), measure, self.budget, files, 300, self.budget.seed
        )

    def _made_from(self, name: str) -> tuple[tuple[str, ...], tuple[Path, ...], bool]:
        """Return the code and files that a network is made from, and whether it ships."""
        base = BASE if name == STEEP else name
        steep = (f"{_CODE}.steepness:curve",) if name == STEEP else ()
        if (SHIPPED / base).is_dir():
            return steep, (SHIPPED / base,), True
        return (*steep, *code_of(NETWORKS[base])), (), False

    def _task(self, data: str) -> Task:
        return load_task(data, self.place.needed_data())

    def _judge(self, name: str) -> Judge:
        if name == STEEP:
            base = self.judge(BASE)
            return replace(base, bundle=at_steepness(base.bundle, chosen(self._held_out()), STEEP))
        task = self.task(data_of(name))
        if (SHIPPED / name).is_dir():
            bundle = load_bundle(SHIPPED / name, torch.device("cpu"))
        else:
            work = work_of(self.cache.folder / "networks", NETWORKS[name], task)
            bundle = trained(name, task, work / name / "bundle", work)
        return Judge(bundle, task.test.first(self.budget.images), task.held_out, self.budget.seed)

    def _held_out(self) -> list[Point]:
        return self._curve(HELD_OUT, self.budget.images)

    def _curve(self, split: str, count: int) -> list[Point]:
        return curve(self.judge(BASE), self.judge(plain_of(BASE)), split, count, self.cache)


def worst(others: list[Scored], row: AttackRow, budget: Budget) -> Scores:
    """Return the scores under all attacks within the row's bound: a picture is right if it is right under each attack
    that was run on it. Slow attacks run on fewer pictures."""
    assert row.eps is not None
    inside = [
        each.scores() for each in others
        if each.attack.attack == "clean" or (each.attack.eps is not None and each.attack.eps <= row.eps)
    ]  # fmt: skip
    count = budget.pictures(replace(row, slow=False, steps=True))
    correct = np.ones((1, count), np.bool_)
    for found in inside:
        met = min(count, found.correct.shape[1])
        correct[:, :met] &= found.correct[:, :met]
    bound = np.full(count, row.eps)
    return Scores(correct, np.zeros_like(correct), bound, bound)


def data_of(name: str) -> str:
    """Return the data set of the network `name`."""
    return name.partition("-")[0]


def plain_of(name: str) -> str:
    """Return the name of the network of the same data set without a layer."""
    return f"{data_of(name)}-plain"
