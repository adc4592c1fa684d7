"""Drop disagreement of whole pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lab.data import LabelledPictures
from lab.strip.calibrate import AT_ONCE, whole_input
from processors.pipeline import Pipeline

_WORD: Final = 2**32


@torch.inference_mode()
def agreements(
    pipeline: Pipeline,
    pictures: LabelledPictures,
    *,
    seed: int = 3,
    advance: Callable[[int], object] = lambda count: None,
) -> NDArray[np.float64]:
    """Return `Pipeline.agreement` (n,) of whole pictures, with masks and draws from `seed`."""
    masks, draws, found = np.random.default_rng(seed), torch.Generator().manual_seed(seed), []
    for frames, _ in pictures.batches(pipeline.bundle.device):
        inputs, seeds = whole_input(pipeline, frames), pipeline.bundle.seeds(len(frames), draws)
        for start in range(0, len(inputs), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            own = masks.integers(_WORD, size=(len(inputs[some]), 2), dtype=np.uint64)
            found.append(pipeline.agreement(inputs[some], own, seeds=None if seeds is None else seeds[some]))
            advance(len(own))
    return torch.cat(found).double().cpu().numpy()
