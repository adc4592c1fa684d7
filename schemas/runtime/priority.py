"""Lower priority of a process: `python -m schemas.runtime.priority NICENESS PROGRAM ...` runs a program with it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

NICENESS: Final = 19
"""The lowest priority."""
AUTOGROUP: Final = Path("/proc/self/autogroup")
"""The niceness of this session (`man 7 sched`, autogroup)."""


def lower_priority(niceness: int = NICENESS) -> None:
    """Give way to all other processes, or as far as `niceness`. A higher niceness stays.

    Linux compares niceness within a session only, and shares the cores equally between sessions. A process that leads
    its session, as one started by `setsid` does, therefore lowers the session too.
    """
    lowered = os.nice(max(0, niceness - os.nice(0)))
    if os.getsid(0) == os.getpid() and AUTOGROUP.exists():
        AUTOGROUP.write_text(str(lowered), encoding="ascii")


if __name__ == "__main__":
    lower_priority(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
