"""A `pointillist up` in the background, and the resources that its processes use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from infra.local.process import COMMAND
from infra.up import background
from infra.up.background import audit

__all__ = ["COMMAND", "Result", "RunningSystem", "audit", "summary"]

Result = dict[str, Any]

SHOWN = (
    "frames_published", "frames_recorded", "frames_dead_lettered", "frames_shed", "frames_pending", "frames_lost",
    "duplicates_removed", "frames_foreign", "accuracy", "alerts", "strip_checked", "strip_shed", "startup_s",
    "wire_overhead_bytes_per_frame", "frames_per_second", "latency_s", "bytes_raw", "bytes_sent", "bytes_resent",
    "restarts",
)  # fmt: skip


def summary(report: Result, state: Path) -> Result:
    """Return the part of a report that a drill shows, with the audit's own counts."""
    status, found = audit(state)
    shown = {name: report[name] for name in SHOWN}
    shown["sent_over_raw"] = report["bytes_sent"] / report["bytes_raw"] if report["bytes_raw"] else None
    shown["audit"] = {
        "status": status,
        "frames_lost": found["frames_lost"],
        "frames_recorded": found["frames_recorded"],
    }
    return shown


class RunningSystem(background.RunningSystem):
    """A running system whose memory and CPU time are measured."""

    def resident_bytes(self, role: str) -> int:
        """Return the resident memory of a role."""
        return int(psutil.Process(self.await_role(role)).memory_info().rss)

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU seconds of each process so far, the supervisor included."""
        used = {}
        for role, pid in [*((role, entry["pid"]) for role, entry in self.roles().items()), ("up", self.process.pid)]:
            try:
                times = psutil.Process(pid).cpu_times()
            except psutil.NoSuchProcess:
                continue
            used[role] = times.user + times.system
        return used
