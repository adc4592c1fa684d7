"""The files of the trainings' checkpoints."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def checkpoint_of(work: Path, name: str, settings: str, *arrays: NDArray[np.generic]) -> Path:
    """Return the checkpoint of a training in the folder `work`, which is made.

    A training of other settings, pictures or initial weights has another file.
    """
    state = hashlib.blake2b(settings.encode(), digest_size=6)
    for each in arrays:
        state.update(np.ascontiguousarray(each).data)
    work.mkdir(parents=True, exist_ok=True)
    return work / f"{name}-{state.hexdigest()}.pt"
