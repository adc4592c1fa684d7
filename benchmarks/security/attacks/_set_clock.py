"""The command `pointillist` with a wrong clock: `python -m benchmarks.security.attacks._set_clock FILE ARGUMENTS`.

The file holds the offset in seconds, and may be replaced while the command runs. The monotonic clock is not changed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def shift(file: Path) -> None:
    """Offset the time of day by the number in the file from now on."""
    real_ns = time.time_ns

    def time_ns() -> int:
        return real_ns() + round(1e9 * float(file.read_text()))

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


if __name__ == "__main__":
    shift(Path(sys.argv.pop(1)))
    from infra.cli import main

    main()
