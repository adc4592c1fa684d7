"""The plan of the experiment on pixel drop and reconstruction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lab.data import LabelledPictures, read_cifar10_test, read_pictures
from lab.experiments.harness.cell import Cell, Tables
from lab.experiments.harness.plan import Plan, Workplace
from lab.experiments.super_iot import plots
from lab.experiments.super_iot.adaptive import eot_rows
from lab.experiments.super_iot.algorithm import mean_psnr, traced
from lab.experiments.super_iot.defences import product, read_weights
from lab.experiments.super_iot.judges import Judge, judge_of
from lab.experiments.super_iot.measure import Measurement
from lab.experiments.super_iot.plan import KEY_RATIOS, AttackRow, Budget
from lab.experiments.super_iot.quality import MASKS, MODES, quality_row
from lab.experiments.super_iot.report import COMMAND, plot_file, write_report
from lab.experiments.super_iot.rivals import rivals
from lab.experiments.super_iot.rows import Comparison, JudgeRow, PlotRow, QualityRow, Row, SizeRow
from lab.experiments.super_iot.sizes import size_rows, with_accuracy
from lab.masks import random_masks
from lab.networks.families import JUDGES
from processors.bundle import Bundle, load_bundle, read_settings, shipped_bundle
from processors.pipeline import Pipeline
from processors.stages.modes import Mode
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings

NAME: Final = "super-iot"
TABLES: Final = {
    "judges": JudgeRow, "accuracy": Row, "adaptive": Row, "comparisons": Comparison,
    "psnr": QualityRow, "bytes": SizeRow, "plots": PlotRow,
}  # fmt: skip
BUDGET: Final = Budget(sweep_images=120, paper_repeats=1, eot_images=200)
BESIDE: Final = BUDGET.smaller(images=300, repeats=1, slow_images=40)
"""The budget of the judges after the first."""
EOT_RATIO: Final = 0.25
VIDEO_FRAMES: Final = 10
"""Frames of each video, spread over its length."""
STEP_SIZES: Final = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1)
TRACED_ROUNDS: Final = 40
TRACED_PICTURES: Final = 4
TRACED_RATIO: Final = 0.25
_CODE: Final = "lab.experiments.super_iot"
_CPU: Final = torch.device("cpu")


@dataclass(frozen=True)
class Setup:
    """The judges and their inputs. Only the first judge meets the adaptive attacker.

    `data` is a file of labelled pictures; without it, the pictures are CIFAR-10's test split. The reconstruction with
    `weights` was trained without any attack.
    """

    judges: tuple[Path, ...]
    budget: Budget = BUDGET
    beside: Budget = BESIDE
    data: Path | None = None
    videos: tuple[Path, ...] = ()
    weights: Path | None = None


def usual(place: Workplace) -> Setup:
    """Return the shipped CIFAR-10 bundle and the lab's own judges, on CIFAR-10 and the videos of the data folder."""
    own = Path(str(files("lab"))) / "networks"
    trained = [own / family for family in JUDGES if (own / family / "model.toml").is_file()]
    videos = sorted((place.data / "video").glob("*.mp4")) if place.data is not None else []
    weights = Path(str(files("bundles"))) / "restorer" / "without-attack.safetensors"
    return Setup((shipped_bundle("cifar10"), *trained), videos=tuple(videos), weights=weights)


def plan(place: Workplace, setup: Setup | None = None) -> Plan:
    """Return the plan in order: the first judge, the adaptive attacker, the other judges, quality, bytes and plots."""
    store, setup = place.store(NAME), setup or usual(place)
    pictures = Pictures(place, setup)
    judges = [JudgeCells(pictures, folder, first=not number) for number, folder in enumerate(setup.judges)]
    cells = [*(cell for judge in judges for cell in judge.cells()), *pictures.cells(judges[0])]
    return Plan(NAME, TABLES, tuple(cells), store, lambda: write_report(store))


class JudgeCells:
    """The cells of one judge. It is loaded when the first cell is measured."""

    def __init__(self, pictures: Pictures, folder: Path, *, first: bool) -> None:
        self.pictures = pictures
        self.folder = folder
        self.first = first
        self.name = read_settings(folder).name
        self.budget = pictures.setup.budget if first else pictures.setup.beside
        self.cache = pictures.place.cache(NAME)

    @cached_property
    def bundle(self) -> Bundle:
        """The bundle of the judge."""
        return load_bundle(self.folder, _CPU)

    @cached_property
    def judge(self) -> Judge:
        """The judge with its pictures."""
        return judge_of(self.bundle, self.pictures.every, self.budget.seed, self.budget.images)

    @cached_property
    def measurement(self) -> Measurement:
        """The measurements of the judge."""
        weights = self.pictures.setup.weights
        other = None if weights is None else read_weights(weights, _CPU)
        return Measurement(self.judge, self.budget, rivals(self.budget.repeats), other, self.cache)

    def cells(self) -> Iterator[Cell]:
        """Yield all cells of the judge, the most important first."""
        yield self._cell("judge", ("judges:judge_of",), self._judge, 20)
        for row in self.budget.rows():
            count = self.budget.pictures_of(row) or 9_000
            yield self._accuracy(row, 600 + count * (2.0 if row.minimises else 0.05))
        if self.first:
            yield from (self._eot(targeted) for targeted in (True, False))
        entries = ("measure:Measurement", "rivals:rivals")
        yield self._cell("comparisons", entries, lambda: {"comparisons": self.measurement.comparisons()}, 600)

    def _judge(self) -> Tables:
        judge, data = self.judge, self.pictures.every.name
        return {"judges": [JudgeRow(self.name, judge.bundle.model_id, data, judge.total, judge.correct, COMMAND)]}

    def _accuracy(self, row: AttackRow, seconds: float) -> Cell:
        def measure() -> Tables:
            return {"accuracy": self.measurement.rows(row)}

        return self._cell(row.id, ("measure:Measurement", "rivals:rivals"), measure, seconds, row)

    def _eot(self, targeted: bool) -> Cell:
        def measure() -> Tables:
            pipeline = Pipeline(self.bundle)
            defence = product(pipeline, EOT_RATIO, self.budget.repeats)
            return {"adaptive": eot_rows(self.judge, pipeline, defence, self.budget, self.cache, targeted)}

        key = f"eot-pgd-{'targeted' if targeted else 'untargeted'}"
        return self._cell(key, ("adaptive:eot_rows", "defences:product"), measure, 5 * self.budget.eot_images)

    def _cell(
        self, key: str, code: tuple[str, ...], measure: Callable[[], Tables], seconds: float, settings: object = ()
    ) -> Cell:
        entries = tuple(f"{_CODE}.{each}" for each in code)
        weights = self.pictures.setup.weights
        inputs = (self.folder, self.pictures.file, *(() if weights is None else (weights,)))
        return Cell(f"{self.name}/{key}", entries, measure, (settings, self.budget), inputs, seconds, self.budget.seed)


class Pictures:
    """The pictures of the experiment, and the cells without a judge or with the first judge only."""

    def __init__(self, place: Workplace, setup: Setup) -> None:
        self.place = place
        self.setup = setup
        self.cache = place.cache(NAME)
        self.file = setup.data or place.data_set("cifar10")

    @cached_property
    def every(self) -> LabelledPictures:
        """All test pictures."""
        classes = min(len(read_settings(folder).classes) for folder in self.setup.judges)
        if self.setup.data is None:
            return read_cifar10_test(self.place.needed_data(), classes)
        return read_pictures(self.setup.data, classes)

    def cells(self, first: JudgeCells) -> Iterator[Cell]:
        """Yield the cells for PSNR, bytes and plots."""
        for ratio in KEY_RATIOS:
            for mode in MODES:
                yield from (self._quality(mode, masks, ratio) for masks in MASKS)
        yield self._bytes(first)
        yield from (self._video(file) for file in self.setup.videos)
        code = (f"{_CODE}.algorithm:traced", f"{_CODE}.algorithm:mean_psnr", f"{_CODE}.plots:pictures_by_ratio")
        yield Cell("figures", code, self._figures, self.setup.budget.seed, (self.file,), 900)

    def _quality(self, mode: Mode, masks: str, ratio: float) -> Cell:
        budget = self.setup.budget

        def measure() -> Tables:
            return {
                "psnr": [
                    quality_row(self.every.first(budget.images), mode, masks, ratio, budget.seed, _CPU, self.cache)
                ]
            }

        name, settings = f"psnr/{mode}-{masks}-r{ratio:g}", (mode, masks, ratio, budget.images)
        seconds = 3600 if mode == "paper" else 300
        return Cell(name, (f"{_CODE}.quality:quality_row",), measure, settings, (self.file,), seconds, budget.seed)

    def _bytes(self, first: JudgeCells) -> Cell:
        budget = self.setup.budget

        def measure() -> Tables:
            pictures = self.every.first(budget.within(budget.sweep_images))
            pipeline = Pipeline(first.bundle)
            return {
                "bytes": [
                    row if row.encoding == "raw" else with_accuracy(row, pictures, pipeline, budget.seed, self.cache)
                    for row in size_rows(pictures.name, pictures.images, budget.ratios, budget.seed, self.cache)
                ]
            }

        code = (f"{_CODE}.sizes:size_rows", f"{_CODE}.sizes:with_accuracy")
        inputs = (first.folder, self.file)
        return Cell("bytes/pictures", code, measure, budget, inputs, 300, budget.seed)

    def _video(self, file: Path) -> Cell:
        budget = self.setup.budget

        def measure() -> Tables:
            frames = video_frames(file, VIDEO_FRAMES)
            return {"bytes": size_rows(file.name, frames, budget.ratios, budget.seed, self.cache)}

        code = (f"{_CODE}.sizes:size_rows", f"{__name__}:video_frames")
        return Cell(f"bytes/{file.name}", code, measure, budget.ratios, (file,), 300, budget.seed)

    def _figures(self) -> Tables:
        out, seed = self.place.store(NAME).folder, self.setup.budget.seed
        images = self.every.images[:TRACED_PICTURES]
        plots.pictures_by_ratio(images[0], seed, plot_file(out, "figure-3"))
        frames = [_grey(image) for image in images]
        generator = torch.Generator().manual_seed(seed)
        height, width = frames[0].shape
        kept = list(random_masks(len(frames), height, width, TRACED_RATIO, generator)[:, 0].numpy())
        plots.descent(traced(frames[0], kept[0], TRACED_ROUNDS), plot_file(out, "figure-4"))
        psnr = np.array([[mean_psnr(frames, kept, delta, mu) for mu in STEP_SIZES] for delta in STEP_SIZES])
        plots.step_sizes(STEP_SIZES, psnr, plot_file(out, "figure-5"))
        return {"plots": [PlotRow(f"figure-{number}") for number in (3, 4, 5)]}


def _grey(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean of a picture (H, W, C) over its channels in [0, 1], cropped to whole blocks."""
    grey: NDArray[np.float64] = image.mean(2) / 255
    return grey[: image.shape[0] // 8 * 8, : image.shape[1] // 8 * 8]


def video_frames(file: Path, count: int) -> NDArray[np.uint8]:
    """Return about `count` frames (N, H, W, 3) of a video at even intervals, in the size of the video."""
    source = open_source(SourceSettings(kind="video", file=file))
    total = sum(1 for _ in iter(source.read, None))
    source.close()
    source = open_source(SourceSettings(kind="video", file=file))
    every = max(1, total // count)
    found = [captured.picture for captured in islice(iter(source.read, None), 0, every * count, every)]
    source.close()
    return np.stack(found)
