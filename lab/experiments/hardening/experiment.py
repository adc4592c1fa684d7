"""The plan of the hardening's experiment."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import torch

from lab.backdoor.scene import discard_other_checkpoint, train
from lab.data import LabelledPictures, read_cifar10_test
from lab.experiments.codefend.rows import DetectorRow
from lab.experiments.hardening import candidates, detection
from lab.experiments.hardening.alone import BOUNDS, FRAMES, SIZE, alone
from lab.experiments.hardening.paired import BARE, BEHIND, HARDENED, PICTURES, SEED, SETTINGS, Setting, measured
from lab.experiments.hardening.paired_report import paired_page
from lab.experiments.hardening.report import scene_page
from lab.experiments.hardening.rows import AdaptedRow, AloneRow, CandidatesRow, HardRow, PairedRow, SceneRow, StripRow
from lab.experiments.hardening.scene import (
    ADAPTED,
    ADAPTED_FRAMES,
    FIRST_TEST_CAMERA,
    HARD_SIZES,
    SIZES,
    STRIP_SCENES,
    attacked,
    hard,
    judged,
    withstood,
)
from lab.experiments.harness.cell import Cell, Tables
from lab.experiments.harness.page import write_page
from lab.experiments.harness.plan import Plan, Workplace
from lab.experiments.red_team.published_runs import IMAGES
from lab.training.scene import TEST_SEED, scenes
from processors.bundle import Bundle, load_bundle, shipped_bundle

NAME: Final = "hardening"
TABLES: Final = {
    "attacked": SceneRow, "hard": HardRow, "strip": StripRow, "adapted": AdaptedRow, "alone": AloneRow,
    "paired": PairedRow, "transferred": PairedRow,
    "candidates": CandidatesRow, "statistics": DetectorRow,
}  # fmt: skip
COMMAND: Final = f"pointillist lab stale --only {NAME} --row paired --run"
NETWORKS: Final = {"hardened": "scene", "plain": "scene-plain"}
SICK: Final = {"plain": shipped_bundle("scene-sticker")}
"""The backdoored networks that ship."""
TRANSFERRED: Final = Setting(*HARDENED, BARE, "auto-attack")
"""An attack of the paired table that is made on all pictures of the red team's runs too."""
CANDIDATES: Final = tuple(Setting(*HARDENED, side, candidates.ATTACK) for side in (BARE, BEHIND))
"""The attacks with a candidate for each goal."""
_CODE: Final = "lab.experiments.hardening.scene"
_TRAIN: Final = "lab.backdoor.scene:train"
_PAIRED: Final = "lab.experiments.hardening.paired:measured"
_COSTLY: Final = {"auto-attack": 5000, "eot-pgd": 500, "targeted": 500, "square": 600}
"""Seconds of a costly attack through the drop."""
_BARE_SECONDS: Final = {"auto-attack": 900}
"""Seconds of a costly attack on the bare network."""
_USUAL: Final = {BEHIND: 250, BARE: 25}
"""Seconds of any other attack, by the attacked side."""
_CANDIDATES_SECONDS: Final = {BEHIND: 2000, BARE: 200}
_SECONDS: Final = {32: 140, 64: 160, 240: 420, 480: 700, 1080: 1500}
"""Cost of an attacked size, by its lines."""
_ADAPTED_SECONDS: Final = {32: 480, 96: 600, 480: 3_500}
"""Cost of a size under every attack, by its lines."""
_ALONE_SECONDS: Final = 1_000
"""Cost of one attack alone."""


def plan(place: Workplace) -> Plan:
    """CIFAR-10 with the drop and without it, both scene networks at each size, then STRIP on each.

    The hardened scene network meets further attacks last.
    """
    cells = [_paired(each, place) for each in SETTINGS]
    cells.append(_paired(TRANSFERRED, place, IMAGES, "transferred"))
    cells += [_candidates(each, place) for each in CANDIDATES]
    for network, bundle in NETWORKS.items():
        folder = shipped_bundle(bundle)
        cells += [_attacked(network, folder, size) for size in SIZES]
        cells += [_hard(network, folder, size) for size in HARD_SIZES]
    cells += [_strip(network, shipped_bundle(bundle), place) for network, bundle in NETWORKS.items()]
    cells += [_statistics(network, size, place) for network in NETWORKS for size in detection.SIZES]
    cells += [_adapted(*each) for each in ADAPTED]
    cells += [_alone(kind, eps, attack) for attack in FRAMES for kind, eps in BOUNDS]
    store = place.store(NAME)

    def write() -> list[str]:
        rows = store.records("attacked", SceneRow), store.records("hard", HardRow), store.records("strip", StripRow)
        more = store.records("adapted", AdaptedRow), store.records("alone", AloneRow)
        statistics = store.records("statistics", DetectorRow)
        write_page(store.folder / "scene.md", scene_page(*rows, *more, statistics))
        paired, measured_rows = store.records("paired", PairedRow), store.rows()
        transferred = store.records("transferred", PairedRow)
        missing = [each.name for each in (*SETTINGS, *CANDIDATES) if each.name not in measured_rows]
        if paired:
            again = store.records("candidates", CandidatesRow)
            write_page(store.folder / "paired.md", paired_page(paired, transferred, again, missing, COMMAND))
        return []

    return Plan(NAME, TABLES, tuple(cells), store, write)


def _paired(setting: Setting, place: Workplace, count: int = PICTURES, table: str = "paired") -> Cell:
    folder = shipped_bundle(setting.bundle)

    def measure() -> Tables:
        bundle = _loaded(folder)
        pictures = read_cifar10_test(place.needed_data(), len(bundle.settings.classes), count)
        cache = place.committed_cache(NAME) if table == "transferred" else place.cache(NAME)
        return {table: [measured(setting, bundle, pictures, cache)]}

    files = (folder, place.data_set("cifar10"))
    costly = _COSTLY if setting.made_on == BEHIND else _BARE_SECONDS
    seconds = costly.get(setting.attack, _USUAL[setting.made_on]) * count / PICTURES
    name = setting.name.replace("paired", table, 1)
    return Cell(name, (_PAIRED,), measure, (setting, count), files, seconds, SEED)


def _candidates(setting: Setting, place: Workplace) -> Cell:
    """Return an attack with several candidates for each picture; only those made through the drop are shown again."""
    folder = shipped_bundle(setting.bundle)

    def measure() -> Tables:
        bundle = _loaded(folder)
        pictures = read_cifar10_test(place.needed_data(), len(bundle.settings.classes), PICTURES)
        paired, again = candidates.measured(setting, bundle, pictures, place.cache(NAME))
        return {"paired": [paired], "candidates": [again] if setting.made_on == BEHIND else []}

    files = (folder, place.data_set("cifar10"))
    seconds = _CANDIDATES_SECONDS[setting.made_on]
    code = (f"{candidates.__name__}:measured",)
    return Cell(setting.name, code, measure, (setting, PICTURES), files, seconds, SEED)


def _attacked(network: str, folder: Path, size: tuple[int, int]) -> Cell:
    def measure() -> Tables:
        return {"attacked": [attacked(_loaded(folder), size, SIZES[size])]}

    height, width = size
    name = f"{network}/{width}x{height}/attacked"
    return Cell(name, (f"{_CODE}:attacked",), measure, (size, SIZES[size]), (folder,), _SECONDS[height])


def _adapted(kind: str, eps: float, size: tuple[int, int]) -> Cell:
    """Return the hardened network under every attack."""
    folder = shipped_bundle(NETWORKS["hardened"])

    def measure() -> Tables:
        return {"adapted": [withstood(_loaded(folder), size, ADAPTED_FRAMES, kind, eps)]}

    height, width = size
    name = f"hardened/{width}x{height}/{kind}-{eps:g}"
    settings = (size, ADAPTED_FRAMES, kind, eps)
    return Cell(name, (f"{_CODE}:withstood",), measure, settings, (folder,), _ADAPTED_SECONDS[height])


def _alone(kind: str, eps: float, attack: str) -> Cell:
    """Return the hardened network under one attack of another kind."""
    folder = shipped_bundle(NETWORKS["hardened"])

    def measure() -> Tables:
        return {"alone": [alone(_loaded(folder), kind, eps, attack)]}

    height, width = SIZE
    name = f"hardened/{width}x{height}/{kind}-{eps:g}/{attack}"
    settings = (SIZE, FRAMES[attack], kind, eps, attack)
    return Cell(name, ("lab.experiments.hardening.alone:alone",), measure, settings, (folder,), _ALONE_SECONDS)


def _hard(network: str, folder: Path, size: tuple[int, int]) -> Cell:
    def measure() -> Tables:
        return {"hard": list(hard(_loaded(folder), size, HARD_SIZES[size]))}

    height, width = size
    name = f"{network}/{width}x{height}/hard"
    return Cell(name, (f"{_CODE}:hard",), measure, (size, HARD_SIZES[size]), (folder,), 60)


def _strip(network: str, folder: Path, place: Workplace) -> Cell:
    """STRIP on the clean and the backdoored network."""

    def measure() -> Tables:
        pictures = scenes(TEST_SEED, STRIP_SCENES, first_camera=FIRST_TEST_CAMERA)
        test = LabelledPictures("scenes", *pictures)
        return {"strip": [judged(network, _loaded(_sick(network, place)), _loaded(folder), test)]}

    shipped = network in SICK
    code = (f"{_CODE}:judged",) if shipped else (f"{_CODE}:judged", _TRAIN)
    files = (folder, SICK[network]) if shipped else (folder,)
    return Cell(f"{network}/strip", code, measure, STRIP_SCENES, files, 900 if shipped else 3600)


def _statistics(network: str, size: tuple[int, int], place: Workplace) -> Cell:
    """All statistics on the backdoored network, on scenes of one size."""
    folder = shipped_bundle(NETWORKS[network])

    def measure() -> Tables:
        found = detection.statistics(network, _sick(network, place), folder, size, place.cache(NAME))
        return {"statistics": found}

    height, width = size
    shipped, code = network in SICK, f"{detection.__name__}:statistics"
    files = (folder, SICK[network]) if shipped else (folder,)
    settings = (size, detection.NUMBERS, detection.HELD_OUT)
    name = f"{network}/{width}x{height}/statistics"
    seconds = 300 if shipped else 600
    return Cell(name, (code,) if shipped else (code, _TRAIN), measure, settings, files, seconds)


@cache
def _sick(network: str, place: Workplace) -> Path:
    """Return the folder of the backdoored bundle of a network. That of the hardened network is trained first."""
    if network in SICK:
        return SICK[network]
    work, start = place.runs / "backdoor" / f"scene-sticker-{network}", NETWORKS[network]
    # An earlier bundle may be of other weights or code; the checkpoint that is left is not.
    discard_other_checkpoint(work, start)
    train(work, start)
    return work / "bundle"


def _loaded(folder: Path) -> Bundle:
    return load_bundle(folder, torch.device("cpu"))
