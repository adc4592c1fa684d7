"""The lowest priority that a process can give itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

NICENESS: Final = 19
AUTOGROUP: Final = Path("/proc/self/autogroup")
"""The niceness of this session (`man 7 sched`, autogroup)."""


def lower_priority() -> None:
    """Give way to all other processes.

    Linux compares niceness within a session only, and shares the cores equally between sessions. A process that leads
    its session, as one started by `setsid` does, therefore lowers the session too.
    """
    os.nice(NICENESS - os.nice(0))
    if os.getsid(0) == os.getpid() and AUTOGROUP.exists():
        AUTOGROUP.write_text(str(NICENESS), encoding="ascii")
