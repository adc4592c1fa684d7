"""Abandoned work: threads that may never return, for which the interpreter would wait at its end."""

from __future__ import annotations

import os
import sys
from concurrent.futures import Future
from typing import Any, Final

_RUNNING: Final[set[Future[Any]]] = set()


def abandon(work: Future[Any]) -> None:
    """Let the process end while this work runs. Nobody waits for its result."""
    _RUNNING.add(work)
    work.add_done_callback(_RUNNING.discard)


def abandoned() -> int:
    """Return the number of abandoned works that still run."""
    return len(_RUNNING)


def end_process(error: BaseException) -> None:
    """End the process at once, with the status of `error`, if abandoned work still runs. Otherwise return.

    The caller has closed everything: exit handlers of the interpreter do not run.
    """
    if not _RUNNING:
        return
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
    else:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
