"""The detection loss of STRIP's sequential mode.

    python -m lab.experiments.codefend.stops NAME … --models DIR --out FILE.csv

Each bundle is calibrated in a copy, as by `pointillist lab calibrate`, on the defender's pictures without any
trigger. Then clean and stamped test pictures are judged with all overlays and sequentially. `lost` is the share, in
percentage points, of the stamped pictures on target that only the test with all overlays flags.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lab.backdoor.catalogue import MODELS
from lab.backdoor.files import stamped_test
from lab.backdoor.foreign import FOREIGN
from lab.backdoor.tasks import load_task
from lab.backdoor.train import CPU, shipped_models
from lab.data import LabelledPictures
from lab.results.csv_rows import read_rows, write_rows
from lab.strip.limits import Limits
from lab.strip.measure import check
from lab.strip.table import calibrate_bundle
from processors.bundle import load_bundle
from processors.pipeline import Pipeline
from schemas.errors import ConfigError
from schemas.limits import dropped_per_block

FRR = 0.01


@dataclass(frozen=True)
class StopsRow:
    """One backdoored network, on frames without a share `drop` of their pixels.

    `missed_all` and `missed_sequential` are shares of the stamped pictures that reach the target; `lost` is their
    difference. `passes` is the mean per clean test picture. `expected_passes` and `lost_at_edge` are the calibration's
    estimates without a trigger. `flagged_all` and `flagged_sequential` are shares of the clean pictures.
    """

    model: str
    drop: float
    statistic: str
    reached: int
    missed_all: float
    missed_sequential: float
    lost: float
    lost_at_edge: float
    passes: float
    expected_passes: float
    clean: int
    flagged_all: float
    flagged_sequential: float


def measure(name: str, folder: Path, data: Path, clean_count: int, stamped_count: int, drop: float = 0.0) -> StopsRow:
    """Calibrate a copy of the bundle in `folder`, and judge at most the given numbers of test pictures with it."""
    model = FOREIGN.get(name) or MODELS[name]
    poisoning = model.poisoning
    if poisoning is None:
        raise ConfigError(f"expected a sick model, got the clean one {name}")
    task = load_task(model.data, data)
    dropped = dropped_per_block(drop)
    prices: list[Limits] = []
    with tempfile.TemporaryDirectory() as beside:
        copy = Path(beside) / "bundle"
        shutil.copytree(folder, copy)
        calibrate_bundle(
            copy, task.held_out, frr=FRR, dropped_per_block=dropped, device=CPU,
            priced=lambda _, limits: prices.append(limits),
        )  # fmt: skip
        pipeline = Pipeline(load_bundle(copy, CPU))
    clean, stamped = _some(task.test, clean_count), _some(stamped_test(task, poisoning), stamped_count)
    plain, early = (check(pipeline, clean, dropped, sequential=way) for way in (False, True))
    marked, marked_early = (check(pipeline, stamped, dropped, sequential=way) for way in (False, True))
    reached = marked.verdict == poisoning.target
    missed, missed_early = (float((~found.flagged[reached]).mean()) for found in (marked, marked_early))
    strip = pipeline.bundle.settings.strip
    table = None if strip is None else strip.threshold(dropped)
    assert table is not None
    return StopsRow(
        name, drop, table.statistic, int(reached.sum()), missed, missed_early, missed_early - missed, prices[-1].lost,
        float(early.passes.mean()), prices[-1].mean_passes, len(clean), float(plain.flagged.mean()),
        float(early.flagged.mean()),
    )  # fmt: skip


def _some(pictures: LabelledPictures, count: int) -> LabelledPictures:
    return pictures.take(np.sort(np.random.default_rng(0).permutation(len(pictures))[:count]))


def main() -> None:
    """Measure the named networks, and update their rows in the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted([*MODELS, *FOREIGN]), metavar="NAME")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")))
    parser.add_argument("--models", type=Path, default=shipped_models(), help="folder with NAME/bundle of each")
    parser.add_argument("--clean", type=int, default=1000, help="clean test pictures at most")
    parser.add_argument("--stamped", type=int, default=2000, help="stamped test pictures at most")
    parser.add_argument("--drop", type=float, default=0.0, help="share of the pixels that is missing")
    parser.add_argument("--out", type=Path, required=True, help="CSV")
    arguments = parser.parse_args()
    for name in arguments.names:
        folder = arguments.models / name / "bundle"
        row = measure(name, folder, arguments.data, arguments.clean, arguments.stamped, arguments.drop)
        print(row, flush=True)
        others = [
            each for each in read_rows(arguments.out, StopsRow) if (each.model, each.drop) != (name, arguments.drop)
        ]
        write_rows(arguments.out, [*others, row], StopsRow)


if __name__ == "__main__":
    main()
