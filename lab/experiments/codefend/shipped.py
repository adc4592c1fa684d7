"""New limits of the sequential mode for all shipped networks.

`python -m lab.experiments.codefend.shipped --out FILE.csv`.

It works like `pointillist lab calibrate --rounds-only`, on the pictures of the networks' calibration: the held-out ones
of their task. Thresholds stay. For each network, the file has a row for whole frames and one for each drop ratio with a
threshold. A row holds the mean passes of a clean frame, before and after.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.backdoor.catalogue import MODELS
from lab.backdoor.tasks import load_task
from lab.backdoor.train import CPU, shipped_models
from lab.data import LabelledPictures
from lab.results.csv_rows import read_rows, write_rows
from lab.strip.limits import Limits
from lab.strip.table import calibrate_rounds
from lab.training.scene import CALIBRATION_SEED, scenes
from processors.bundle import shipped_bundle

SCENES: Final = 2_100
"""Number of scenes with which the networks on scenes were calibrated."""


@dataclass(frozen=True)
class RoundsRow:
    """Results of one network on frames with this many of 64 pixels dropped.

    `lost_at_edge` is the expected loss among the triggers that are hardest to detect, see `lab.strip.limits`.
    """

    model: str
    dropped_per_block: int
    passes_before: float
    passes: float
    lost_at_edge: float


def bundles() -> dict[str, Path]:
    """Return the bundle folders of this checkout, by name."""
    found = {
        name: shipped_bundle(name) for name in ("cifar10", "cifar10-hardened", "scene", "scene-plain", "scene-sticker")
    }
    return found | {folder.parent.name: folder for folder in sorted(shipped_models().glob("*/bundle"))}


def held_out(name: str, data: Path) -> LabelledPictures:
    """Return the pictures with which the network of that name was calibrated."""
    if name.startswith("scene"):
        return LabelledPictures("scenes", *scenes(CALIBRATION_SEED, SCENES))
    return load_task("cifar10" if name.startswith("cifar10") else MODELS[name].data, data).held_out


def main() -> None:
    """Set the limits of all or the named networks, and update their rows in the file."""
    every = bundles()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(every))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")))
    parser.add_argument("--out", type=Path, required=True, help="CSV")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(every):
        parser.error(f"expected some of {', '.join(every)}; got {', '.join(sorted(unknown))}")
    for name in arguments.names or every:
        rows: list[RoundsRow] = []

        def priced(dropped: int, limits: Limits, before: float, name: str = name, rows: list[RoundsRow] = rows) -> None:
            rows.append(RoundsRow(name, dropped, before, limits.mean_passes, limits.lost))
            print(rows[-1], flush=True)

        calibrate_rounds(every[name], held_out(name, arguments.data), device=CPU, priced=priced)
        others = [each for each in read_rows(arguments.out, RoundsRow) if each.model != name]
        write_rows(arguments.out, sorted([*others, *rows], key=lambda row: row.model), RoundsRow)


if __name__ == "__main__":
    main()
