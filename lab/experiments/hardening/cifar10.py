r"""CIFAR-10 as the files that the lab's commands take: `python -m lab.experiments.hardening.cifar10 --out runs`.

`cifar10-train.npz` is for the hardening, `cifar10-test.npz` for the evaluation:

    python -m lab.training.cifar10 --out runs/wide/bundle --epochs 2 --width 32 --bf16
    pointillist lab harden --bundle runs/wide/bundle --data runs/cifar10-train.npz --out runs/cifar10-wide \
        --epochs 15 --eps 0.035 --bf16
    pointillist lab harden --bundle runs/cifar10-wide --data runs/cifar10-train.npz --out bundles/cifar10-hardened \
        --epochs 12 --eps 0.031 --bf16
    pointillist lab red-team --bundle bundles/cifar10-hardened --data runs/cifar10-test.npz
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from lab.backdoor.files import write_npz
from lab.data import LabelledPictures
from schemas.runtime.user_errors import run_command


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")) / "cifar10.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with np.load(arguments.data) as data:
        for part in ("train", "test"):
            pictures = LabelledPictures(part, data[f"{part}_x"], data[f"{part}_y"].astype(np.int64))
            write_npz(arguments.out / f"cifar10-{part}.npz", pictures)


if __name__ == "__main__":
    run_command(main)
