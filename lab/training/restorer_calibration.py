"""Pictures for calibrating the restorer's activation ranges: `python -m lab.training.restorer_calibration`.

They are from its own training pictures: CIFAR-10's for the weights trained on attacks, crops of larger pictures for the
others. Processors that run it in 8-bit integers read them (`processors.device.backends`).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

import numpy as np

from lab.training.pictures import cifar_pictures, crops_of_larger
from schemas.runtime.atomic_file import replacing
from schemas.runtime.user_errors import run_command

COUNT: Final = 96


def main() -> None:
    """Write the archive: `small` and `large`, (N, 32, 32, 3) uint8."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")))
    parser.add_argument("--out", type=Path, default=Path("bundles/restorer/calibration.npz"))
    arguments = parser.parse_args()
    small = cifar_pictures(arguments.data)
    with replacing(arguments.out) as fresh, fresh.open("wb") as file:
        np.savez_compressed(
            file, small=small[:: len(small) // COUNT][:COUNT], large=crops_of_larger(arguments.data, COUNT, seed=2)
        )


if __name__ == "__main__":
    run_command(main)
