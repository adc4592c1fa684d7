"""The plan of the red team: broken defences and parity with foolbox, which validate the attacks, and published runs."""

from __future__ import annotations

from functools import cache
from typing import Final

import torch

from lab.data import read_cifar10_test
from lab.experiments.harness.cell import Cell, Tables
from lab.experiments.harness.page import write_page
from lab.experiments.harness.plan import Plan, Workplace
from lab.experiments.red_team import broken, parity, published_runs
from lab.experiments.super_iot.judges import Judge, judge_of
from processors.bundle import Bundle, load_bundle, shipped_bundle

NAME: Final = "red-team"
TABLES: Final = {"broken": broken.Row, "parity": parity.Row, "run": published_runs.Row}
COMMAND: Final = f"pointillist lab stale --only {NAME} --row broken --row parity --run"
BROKEN_PICTURES: Final = 300
COMPARED_PICTURES: Final = 100
"""Pictures of the rows that compare backward passes."""
PARITY_PICTURES: Final = 200
_BROKEN: Final = "lab.experiments.red_team.broken"
_PARITY: Final = "lab.experiments.red_team.parity"


def plan(place: Workplace) -> Plan:
    """Return the broken defences, the pairs of attacks, the comparisons of backward passes, then the published runs."""
    store = place.store(NAME)
    every = [_broken(place, each, number) for number, each in enumerate(broken.DEFENCES)]
    cells = (
        *every[: broken.MAIN],
        *(_pair(place, each) for each in parity.PAIRS),
        *every[broken.MAIN :],
        *(_run(place, each) for each in published_runs.RUNS),
    )

    def write() -> list[str]:
        model_id = _bundle().model_id
        rows = store.records("broken", broken.Row)
        if rows:
            write_page(store.folder / "broken.md", broken.page(rows, model_id, COMMAND))
        pairs = store.records("parity", parity.Row)
        if pairs:
            write_page(store.folder / "parity.md", parity.page(pairs, model_id, COMMAND))
        return []

    return Plan(NAME, TABLES, cells, store, write)


def _broken(place: Workplace, defence: broken.Broken, number: int) -> Cell:
    count = BROKEN_PICTURES if number < broken.MAIN else COMPARED_PICTURES

    def measure() -> Tables:
        bundle = _bundle()
        pictures, training = broken.pictures_of(place.needed_data(), len(bundle.settings.classes), count)
        return {"broken": [broken.measure(defence, bundle, pictures, training, place.cache("red-team/broken"))]}

    files = (shipped_bundle("cifar10"), place.data_set("cifar10"))
    code = (f"{_BROKEN}:measure", f"{_BROKEN}:pictures_of")
    return Cell(
        f"broken/{defence.name}/{defence.backward}", code, measure, (defence, count), files, 0.6 * count, broken.SEED
    )


def _pair(place: Workplace, pair: parity.Pair) -> Cell:
    def measure() -> Tables:
        return {"parity": [parity.measure(pair, _judge(place), place.cache("red-team/parity"))]}

    files = (shipped_bundle("cifar10"), place.data_set("cifar10"))
    code = (f"{_PARITY}:measure", f"{_PARITY}:PAIRS")
    settings = (pair.name, pair.targeted, PARITY_PICTURES)
    return Cell(f"parity/{pair.name}", code, measure, settings, files, 120, parity.SEED)


def _run(place: Workplace, run: published_runs.PublishedRun) -> Cell:
    folder = shipped_bundle(run.bundle)

    def measure() -> Tables:
        bundle = load_bundle(folder, torch.device("cpu"))
        pictures = read_cifar10_test(place.needed_data(), len(bundle.settings.classes), published_runs.IMAGES)
        batches, pages = place.committed_cache(NAME).folder, place.store(NAME).folder
        return {"run": [published_runs.measure(run, bundle, pictures, batches, pages)]}

    # Not the code of the pages: a change of their text changes no figure.
    code = ("lab.red_team.run:RedTeam",)
    files = (folder, place.data_set("cifar10"))
    settings = (run.bundle, published_runs.DEFENCE, run.eps, published_runs.IMAGES)
    return Cell(f"run/{run.name}", code, measure, settings, files, run.seconds, published_runs.SEED)


@cache
def _bundle() -> Bundle:
    return load_bundle(shipped_bundle("cifar10"), torch.device("cpu"))


@cache
def _judge(place: Workplace) -> Judge:
    bundle = _bundle()
    pictures = read_cifar10_test(place.needed_data(), len(bundle.settings.classes), 2 * PARITY_PICTURES)
    return judge_of(bundle, pictures, parity.SEED, PARITY_PICTURES)
