"""Devices and threads for all tests of the processors."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """Limit torch to one thread: small tensors gain nothing from more, and on a busy machine lose much."""
    torch.set_num_threads(1)


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Return each device of this machine in turn."""
    return torch.device(request.param)
