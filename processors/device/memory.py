"""Whether an error of a network means that memory is exhausted."""

from __future__ import annotations

import re
from typing import Final

import torch

_NO_MEMORY: Final = re.compile(r"allocate (\d+ bytes of )?memory|bad_alloc")


def lacks_memory(error: BaseException) -> bool:
    """Return whether memory is exhausted, by an error or by the one that caused it.

    On the CPU, torch and OpenVINO raise a plain RuntimeError then.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None:
        return True
    return error.__cause__ is not None and lacks_memory(error.__cause__)
