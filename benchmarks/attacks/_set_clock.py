"""The command `pointillist` on a machine whose clock is off: `python -m benchmarks.attacks._set_clock FILE ARGUMENTS`.

The file holds by how many seconds, and may be replaced while the command runs. The monotonic clock takes no notice.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def shift(file: Path) -> None:
    """From now on the time of day is off by what the file says."""
    real_ns = time.time_ns

    def time_ns() -> int:
        return real_ns() + round(1e9 * float(file.read_text()))

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


if __name__ == "__main__":
    shift(Path(sys.argv.pop(1)))
    from infra.cli import main

    main()
