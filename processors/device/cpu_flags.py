"""The instructions that this machine's processor has."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def cpu_flags() -> frozenset[str]:
    """Return the names of the instruction sets of an x86 processor under Linux; none elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()
