"""Reproducible draws that leave torch's global generators unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators as `torch.manual_seed(seed)` does, and restore their state afterwards.

    It serves initial weights and dropout, which accept no generator. It also works as a decorator.
    """
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed)
        yield
