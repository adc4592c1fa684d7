"""The plan of the experiment on attacks by a trained generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from lab.aigan.run import generator_name
from lab.aigan.shipping import SETTINGS
from lab.aigan.tasks import TASKS, Task, home_of, task_of
from lab.cache import Cache, digest
from lab.experiments.aigan.defences import HARDENED
from lab.experiments.aigan.report import write_report
from lab.experiments.aigan.rows import Generator, SuccessRow, TimeRow
from lab.experiments.aigan.run import Attacked
from lab.experiments.harness.cell import Cell, Tables, file_state
from lab.experiments.harness.plan import Plan, Workplace
from processors.bundle import shipped_bundle

NAME: Final = "aigan"
TABLES: Final = {"success": SuccessRow, "times": TimeRow, "generators": Generator}
WHOLE_SPLITS: Final = {"mnist": 10_000, "cifar10": 10_000}
"""Number of test pictures of the tasks whose whole split meets the generators."""
IMAGES: Final = 1_000
"""Number of test pictures that meet the generators of other tasks."""
PGD_IMAGES: Final = 250
SEED: Final = 0
_CODE: Final = "lab.experiments.aigan.run:Attacked"
_SECONDS: Final = {"generator": 600, "gradients": 1800}


def plan(place: Workplace) -> Plan:
    """Return the plan. Each task is attacked by the generators that ship, then by gradients."""
    store = place.store(NAME)
    cells = tuple(cell for name in TASKS for cell in _cells(place, task_of(name)))
    return Plan(NAME, TABLES, cells, store, lambda: write_report(store))


def _cells(place: Workplace, task: Task) -> Iterator[Cell]:
    cache, out = place.cache(f"{NAME}/experiment"), place.store(NAME).folder
    images = WHOLE_SPLITS.get(task.name, IMAGES)
    attacked = Attacked(task, images, PGD_IMAGES, SEED, place.data, out, cache)
    settings = (task.name, images, PGD_IMAGES)
    for black_box in (False, True):
        home = None if black_box and task.black_box is None else home_of(task, black_box)
        if home is not None and (home / SETTINGS).is_file():
            name, files = generator_name(task, black_box), (home, *_files(place, task))
            measure = partial(_measured, attacked, files, partial(Attacked.by_generator, name=name))
            yield Cell(f"{task.name}/{name}", (_CODE,), measure, settings, files, _SECONDS["generator"], SEED)
            if not black_box:
                sharpen = partial(attacked.by_sharpening, name)
                code = (_CODE, "lab.experiments.aigan.run:best_gain")
                yield Cell(f"{task.name}/{name}/sharpened", code, sharpen, settings, files, 120, SEED)
    files = (home_of(task, black_box=False), *_files(place, task))
    name = f"{task.name}/gradients"
    measure = partial(_measured, attacked, files, Attacked.by_gradients)
    yield Cell(name, (_CODE,), measure, settings, files, _SECONDS["gradients"], SEED)


def _measured(attacked: Attacked, files: tuple[Path, ...], rows: Callable[[Attacked], Tables]) -> Tables:
    """Return the rows. Other numbers of pictures, data, networks or generators have another folder of checkpoints.

    The keys of the checkpoints contain neither the pictures nor the generator's ε.
    """
    state = digest(attacked.images, attacked.pgd_images, [file_state(each) for each in files])
    return rows(replace(attacked, cache=Cache(attacked.cache.folder / state)))


def _files(place: Workplace, task: Task) -> tuple[Path, ...]:
    hardened = [shipped_bundle(HARDENED[task.name])] if task.name in HARDENED else []
    return task.target(), *hardened, place.data_set(task.name)
