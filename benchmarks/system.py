"""A `pointillist up` in the background, with what its processes use."""

from __future__ import annotations

import psutil

from infra.local.process import COMMAND
from infra.up import background
from infra.up.background import audit

__all__ = ["COMMAND", "RunningSystem", "audit"]


class RunningSystem(background.RunningSystem):
    """A running system whose memory and CPU time are measured."""

    def resident_bytes(self, role: str) -> int:
        """Memory that a role holds now."""
        return int(psutil.Process(self.await_role(role)).memory_info().rss)

    def cpu_seconds(self) -> dict[str, float]:
        """CPU seconds that each process, the supervisor included, has used so far."""
        used = {}
        for role, pid in [*((role, entry["pid"]) for role, entry in self.roles().items()), ("up", self.process.pid)]:
            try:
                times = psutil.Process(pid).cpu_times()
            except psutil.NoSuchProcess:
                continue
            used[role] = times.user + times.system
        return used
