"""A process's priority. `python -m schemas.runtime.priority NICENESS PROGRAM ...` runs a program with a lower one."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

NICENESS: Final = 19
"""The lowest priority."""
AUTOGROUP: Final = Path("/proc/self/autogroup")
"""The niceness of this session (`man 7 sched`, autogroup)."""
_RETRIES: Final = 20
_RETRY_S: Final = 0.05
_THREADS: Final = Path("/proc/self/task")
_CHANGING: Final = threading.Lock()


def lower_priority(niceness: int = NICENESS) -> None:
    """Give way to all other processes, or as far as `niceness`. A higher niceness stays.

    Linux compares niceness within a session only, and shares the cores equally between sessions. A process that leads
    its session, as one started by `setsid` does, therefore lowers the session too.
    """
    lowered = os.nice(max(0, niceness - os.nice(0)))
    if os.getsid(0) == os.getpid() and AUTOGROUP.exists():
        _lower_session(lowered)


def _lower_session(niceness: int) -> None:
    """Set the niceness of this session. Without it, the work goes on at the priority of a session of its own."""
    for _ in range(_RETRIES):
        try:
            AUTOGROUP.write_text(str(niceness), encoding="ascii")
        except BlockingIOError:  # Linux accepts one such change in a tenth of a second from all users together
            time.sleep(_RETRY_S)
        except OSError:  # a read-only /proc
            return
        else:
            return


@contextmanager
def same_scheduling() -> Iterator[None]:
    """Within the block, a library may change the scheduling of this process; at its end all threads have the old one.

    Threads that begin in the block get the scheduling of the calling thread. Linux only; elsewhere nothing happens.
    """
    # In a namespace of processes that is not mounted, the threads there are those of others.
    if not (_THREADS / str(threading.get_native_id())).exists():
        yield
        return
    with _CHANGING:  # two blocks at once would take each other's change for the old scheduling
        before = _scheduling()
        own = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
        try:
            yield
        finally:
            for thread, found in _scheduling().items():
                policy, priority = before.get(thread, own)
                if found != (policy, priority):
                    with suppress(ProcessLookupError):
                        os.sched_setscheduler(thread, policy, os.sched_param(priority))


def _scheduling() -> dict[int, tuple[int, int]]:
    """Return the policy and the real-time priority of each thread of this process."""
    found = {}
    for thread in (int(each.name) for each in _THREADS.iterdir()):
        with suppress(ProcessLookupError):
            found[thread] = os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority
    return found


if __name__ == "__main__":
    lower_priority(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
