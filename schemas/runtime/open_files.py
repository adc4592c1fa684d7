"""The limit of open files of a process and of the programs that it starts."""

from __future__ import annotations

import resource


def raise_open_files(wanted: int) -> int:
    """Raise this process's soft limit of open files to `wanted`, at most to the hard limit. A higher one stays.

    Programs that are started later inherit it. Returns the limit, `wanted` if there is none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(soft, allowed)
