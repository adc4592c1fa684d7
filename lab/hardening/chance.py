"""Seeds by place: every draw of a training belongs to a step, so no generator's state has to be saved."""

from __future__ import annotations

import numpy as np
import torch


def number_at(seed: int, purpose: int, step: int = 0, part: int = 0) -> int:
    """Return a seed of 63 bits for one place of the training with `seed`. Other places have unrelated seeds."""
    return int(np.random.SeedSequence((seed, purpose, step, part)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_at(seed: int, purpose: int, step: int = 0) -> torch.Generator:
    """Return a CPU generator for one place of the training with `seed`."""
    return torch.Generator().manual_seed(number_at(seed, purpose, step))
