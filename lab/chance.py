"""Chance that can be repeated and that nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's common generators as after `torch.manual_seed(seed)`; afterwards they are as they were.

    For first weights and dropout, which take no generator of their own. Also a decorator.
    """
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed)
        yield
