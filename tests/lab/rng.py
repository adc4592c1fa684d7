"""The seeded generator of torch that the tests draw from."""

from __future__ import annotations

import torch


def rng(seed: int = 0) -> torch.Generator:
    """Return a generator on the CPU with this seed."""
    return torch.Generator().manual_seed(seed)
