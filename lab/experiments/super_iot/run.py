"""The experiment's parts in order; each writes its CSV, the last step writes tables and plots from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from lab.data import LabelledPictures
from lab.experiments.cache import Cache
from lab.experiments.super_iot import plots, report
from lab.experiments.super_iot.adaptive import eot_rows
from lab.experiments.super_iot.algorithm import mean_psnr, traced
from lab.experiments.super_iot.defences import OtherWeights, product, read_weights
from lab.experiments.super_iot.judges import Judge, judge_of
from lab.experiments.super_iot.measure import Measurement, Steps
from lab.experiments.super_iot.plan import KEY_RATIOS, Plan
from lab.experiments.super_iot.quality import MASKS, MODES, quality_row
from lab.experiments.super_iot.rivals import rivals
from lab.experiments.super_iot.rows import Comparison, QualityRow, Row, SizeRow
from lab.experiments.super_iot.sizes import size_rows, with_accuracy
from lab.masks import random_masks
from lab.results.csv_rows import read_rows, write_rows
from processors.bundle import Bundle
from processors.pipeline import Pipeline
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from schemas.errors import ConfigError

PARTS: Final = ("attacks", "tables", "eot", "psnr", "bytes", "figures")
"""`attacks` only makes the adversarial pictures, which `tables` does as well when they are missing."""
EOT_RATIOS: Final = (0.25,)
VIDEO_FRAMES: Final = 10
"""Of each video, spread over its length."""
STEP_SIZES: Final = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1)
TRACED_ROUNDS: Final = 40
TRACED_PICTURES: Final = 4
TRACED_RATIO: Final = 0.25


@dataclass(frozen=True)
class Experiment:
    """What to measure with, and where the results go."""

    bundles: list[Bundle]
    """Judges; the first one also gives the accuracy over bytes and meets the adaptive attacker."""
    pictures: LabelledPictures
    plan: Plan
    beside: Plan
    """For the judges after the first."""
    out: Path
    cache: Cache
    videos: list[Path]
    weights_without_attacks: Path | None
    command: str

    def run(self, parts: tuple[str, ...], steps: Steps) -> list[str]:
        """The parts asked for, then the report; the lines of its verdict."""
        names = [bundle.settings.name for bundle in self.bundles]
        if len(set(names)) != len(names):
            raise ConfigError(f"judges: expected bundles of distinct names, got {', '.join(names)}")
        file, device = self.weights_without_attacks, self.bundles[0].device
        weights = None if file is None else read_weights(file, device)
        self.out.mkdir(parents=True, exist_ok=True)
        if {"attacks", "tables", "eot"} & set(parts):
            self._judge(parts, weights, steps)
        work: dict[str, Callable[[Steps], None]] = {"psnr": self._psnr, "bytes": self._bytes, "figures": self._figures}
        for part, do in work.items():
            if part in parts:
                do(steps)
        if {"tables", "figures"} & set(parts):
            self._figure_6()
        return report.write_report(self.out)

    def _judge(self, parts: tuple[str, ...], weights: OtherWeights | None, steps: Steps) -> None:
        for number, bundle in enumerate(self.bundles):
            plan = self.beside if number else self.plan
            judge = judge_of(bundle, self.pictures, plan.seed, plan.images)
            self._note(judge, plan, weights)
            measurement = Measurement(judge, plan, rivals(plan.repeats), weights, self.cache)
            if "attacks" in parts:
                measurement.attack(steps)
            if "tables" in parts:
                measured = measurement.measure(steps)
                write_rows(report.accuracy_file(self.out, judge.name), measured.rows, Row)
                write_rows(report.comparisons_file(self.out, judge.name), measured.comparisons, Comparison)
            if "eot" in parts and number == 0:
                self._eot(judge, plan, steps)

    def _eot(self, judge: Judge, plan: Plan, steps: Steps) -> None:
        pipeline = Pipeline(judge.bundle)
        steps.expect(2 * len(EOT_RATIOS))
        rows = []
        for ratio in EOT_RATIOS:
            for targeted in (True, False):
                defence = product(pipeline, ratio, plan.repeats)
                rows += eot_rows(judge, pipeline, defence, plan, self.cache, targeted)
                steps.done(f"{judge.name}: EOT-PGD, {'targeted' if targeted else 'untargeted'}, r = {ratio:g}")
        write_rows(report.adaptive_file(self.out, judge.name), rows, Row)

    def _psnr(self, steps: Steps) -> None:
        pictures, device = self.pictures.first(self.plan.images), self.bundles[0].device
        steps.expect(len(MODES) * len(MASKS) * len(KEY_RATIOS))
        rows = []
        for ratio in KEY_RATIOS:
            for mode in MODES:
                for masks in MASKS:
                    rows.append(quality_row(pictures, mode, masks, ratio, self.plan.seed, device, self.cache))
                    steps.done(f"PSNR: {mode}, {masks} masks, r = {ratio:g}")
        write_rows(self.out / report.PSNR, rows, QualityRow)

    def _bytes(self, steps: Steps) -> None:
        plan = self.plan
        pictures = self.pictures.first(plan.within(plan.sweep_images))
        steps.expect(1 + len(self.videos))
        pipeline = Pipeline(self.bundles[0])
        rows = [
            row if row.encoding == "raw"
            else with_accuracy(row, pictures, pipeline, plan.seed, self.cache)
            for row in size_rows(pictures.name, pictures.images, plan.ratios, plan.seed, self.cache)
        ]  # fmt: skip
        steps.done(f"bytes: {pictures.name}")
        for video in self.videos:
            frames = video_frames(video, VIDEO_FRAMES)
            rows += size_rows(video.name, frames, plan.ratios, plan.seed, self.cache)
            steps.done(f"bytes: {video.name}")
        write_rows(self.out / report.BYTES, rows, SizeRow)
        plots.bytes_against_accuracy(rows, report.plot_file(self.out, "bytes"))

    def _figures(self, steps: Steps) -> None:
        steps.expect(3)
        images = self.pictures.images[:TRACED_PICTURES]
        plots.pictures_by_ratio(images[0], self.plan.seed, report.plot_file(self.out, "figure-3"))
        steps.done("figure 3")
        frames = [_grey(image) for image in images]
        generator = torch.Generator().manual_seed(self.plan.seed)
        height, width = frames[0].shape
        kept = list(random_masks(len(frames), height, width, TRACED_RATIO, generator)[:, 0].numpy())
        plots.descent(traced(frames[0], kept[0], TRACED_ROUNDS), report.plot_file(self.out, "figure-4"))
        steps.done("figure 4")
        psnr = np.array([[mean_psnr(frames, kept, delta, mu) for mu in STEP_SIZES] for delta in STEP_SIZES])
        plots.step_sizes(STEP_SIZES, psnr, report.plot_file(self.out, "figure-5"))
        steps.done("figure 5")

    def _figure_6(self) -> None:
        rows = read_rows(report.accuracy_file(self.out, self.bundles[0].settings.name), Row)
        swept = [row for row in rows if row.scope == "sweep"]
        if swept:
            plots.accuracy_by_ratio(swept, report.plot_file(self.out, "figure-6"))

    def _note(self, judge: Judge, plan: Plan, weights: OtherWeights | None) -> None:
        """Keep with the results what they were made with; judges of earlier runs into the same folder stay."""
        file = self.out / report.SETTINGS
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        settings = {
            "command": self.command,
            "data": self.pictures.name,
            "torch": version("torch"),
            "foolbox": version("foolbox"),
            "judges": {
                **known.get("judges", {}),
                judge.name: {
                    "model_id": judge.bundle.model_id,
                    "device": str(judge.bundle.device),
                    "pictures": judge.total,
                    "correct": judge.correct,
                    "plan": asdict(plan),
                    "weights_without_attacks": None if weights is None else weights.made_from,
                },
            },
        }
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _grey(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """A picture (H, W, C) as its mean over channels in [0, 1], cut to whole blocks."""
    grey: NDArray[np.float64] = image.mean(2) / 255
    return grey[: image.shape[0] // 8 * 8, : image.shape[1] // 8 * 8]


def video_frames(file: Path, count: int) -> NDArray[np.uint8]:
    """About `count` frames (N, H, W, 3) of a video, evenly spread, in its own size."""
    source = open_source(SourceSettings(kind="video", file=file))
    total = sum(1 for _ in iter(source.read, None))
    source.close()
    source = open_source(SourceSettings(kind="video", file=file))
    every = max(1, total // count)
    found = [captured.picture for captured in islice(iter(source.read, None), 0, every * count, every)]
    source.close()
    return np.stack(found)
