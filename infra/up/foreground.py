"""Ctrl-C for a run that `make` has started."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def own_foreground() -> Iterator[None]:
    """Under `make` at a terminal, put this process into its own foreground process group for the block.

    Ctrl-C then reaches this process and not `make`, which would end with status 130 even after a good run. Ctrl-Z is
    ignored meanwhile: `make` would not notice that its child has stopped.
    """
    terminal = _terminal()
    if terminal is None:
        yield
        return
    group = os.getpgrp()
    ignored = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTTOU, signal.SIGTSTP)}
    try:
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpgrp())
        yield
    finally:
        with suppress(OSError):  # the terminal may be gone
            os.tcsetpgrp(terminal, group)
            os.setpgid(0, group)
        for number, handler in ignored.items():
            signal.signal(number, handler)


def _terminal() -> int | None:
    """Return the terminal that this process shares with `make`; None without one, or in the background."""
    if "MAKELEVEL" not in os.environ or os.getpgrp() == os.getpid():
        return None
    try:
        terminal = sys.stdin.fileno()
        return terminal if os.tcgetpgrp(terminal) == os.getpgrp() else None
    except (OSError, ValueError, AttributeError):
        return None
