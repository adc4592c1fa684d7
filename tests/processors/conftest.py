"""What all tests of the processors share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """Small tensors gain nothing from threads, and on a busy machine lose much."""
    torch.set_num_threads(1)
