"""A role whose process exits at each start, for tests of the supervisor."""

from __future__ import annotations

import sys
from pathlib import Path

from infra.local.process import Child, ProcessId


class ExitingRole:
    """A process that writes `line` to its log and exits with `status`, each time it is started."""

    def __init__(self, status: int, log: Path, line: str) -> None:
        program = f"import sys; print({line!r}, file=sys.stderr); sys.exit({status})"
        self.log = log
        self.child = Child([sys.executable, "-I", "-S", "-c", program], log)  # no search for installed packages
        self.starts = 0

    def start(self) -> ProcessId:
        self.starts += 1
        return self.child.start()

    def poll(self) -> int | None:
        return self.child.poll()

    def stop(self, deadline_s: float) -> None:
        self.child.stop(deadline_s)
