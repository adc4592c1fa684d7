"""The files of the trainings' checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lab.repair.checkpoints import digest


def checkpoint_of(work: Path, name: str, settings: str, *arrays: NDArray[np.generic]) -> Path:
    """Return the checkpoint of a training in the folder `work`, which is made.

    A training of other settings, pictures or initial weights has another file.
    """
    work.mkdir(parents=True, exist_ok=True)
    return work / f"{name}-{digest(settings, *arrays)[:12]}.pt"
