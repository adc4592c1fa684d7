"""Chance by place: every draw of a training belongs to a step, so that no state of a generator has to be kept."""

from __future__ import annotations

import numpy as np
import torch


def number_at(seed: int, purpose: int, step: int = 0, part: int = 0) -> int:
    """A seed of 63 bits for one place of the training with `seed`; other places give unrelated ones."""
    return int(np.random.SeedSequence((seed, purpose, step, part)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_at(seed: int, purpose: int, step: int = 0) -> torch.Generator:
    """A generator of the CPU for one place of the training with `seed`."""
    return torch.Generator().manual_seed(number_at(seed, purpose, step))
