"""Whether an error of a network means that memory is exhausted."""

from __future__ import annotations

import torch


def lacks_memory(error: BaseException) -> bool:
    """Return whether memory is exhausted: on the CPU, torch raises a plain RuntimeError then."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
