"""Whether an error of a network means that memory is exhausted."""

from __future__ import annotations

import re
from typing import Final

import torch

_NO_MEMORY: Final = re.compile(
    r"allocate (\d+ bytes of )?memory|bad_alloc|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
)


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, means that memory is exhausted."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:  # `raise error from error` makes an error its own cause
        if _means_it(cause):
            return True
        seen.append(cause)
        cause = cause.__cause__
    return False


def _means_it(error: BaseException) -> bool:
    """Return whether this is an error of memory: for some, torch and OpenVINO raise a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None
