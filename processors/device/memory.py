"""Whether an error of a network means that memory is exhausted."""

from __future__ import annotations

import re
from typing import Final

import torch

_NO_MEMORY: Final = re.compile(r"allocate (\d+ bytes of )?memory|bad_alloc")


def lacks_memory(error: BaseException) -> bool:
    """Return whether memory is exhausted: on the CPU, torch and OpenVINO raise a plain RuntimeError then."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None
