"""A CUDA device that computes nothing any more, because an error has destroyed the context of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import torch

from processors.device.memory import lacks_memory
from schemas.errors import first_line

log = structlog.get_logger()


_lost: Final = threading.Event()


class DeviceLostError(BaseException):
    """An error has destroyed the CUDA context, and only another process can use the device.

    It is no `Exception`: a handler of a network's errors must not take it for a fault of one frame or model.
    """


@contextmanager
def lost_device_raised(device: torch.device) -> Iterator[None]:
    """Raise DeviceLostError for an error within the context after which `device` computes nothing any more.

    An illegal address, an assertion on the device or an error of its memory (ECC) destroys a CUDA context: from then on
    all calls fail. All other errors are raised as they are.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # a user's network may raise anything
        failure = None if device.type != "cuda" or lacks_memory(error) else _failure_of(device)
        if failure is None:
            raise
        _lost.set()
        log.error("device_lost", device=str(device), error=first_line(error), next_error=first_line(failure))
        raise DeviceLostError(
            f"{device}: expected a device that computes, got {first_line(error)}. Start the processor again."
        ) from error


def is_lost() -> bool:
    """Return whether this process has lost its device."""
    return _lost.is_set()


def _failure_of(device: torch.device) -> Exception | None:
    """Return the error of a tiny computation on a device; None if it succeeds, or lacks only memory."""
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:
        return None if lacks_memory(error) else error
    return None
