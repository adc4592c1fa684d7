"""The drill `upgrade`: every role of a running system is replaced by this release, under load; see
`benchmarks.reliability.drills`.

`up` of the previous release starts the system. It is then stopped (SIGSTOP), because it would restart its own release.
Each role ends by SIGTERM and starts again with its command, settings and environment, but with this checkout's code.
Roles of two releases therefore run next to each other, on one Kafka, database and set of keys. If both releases have
the same version of the database, it gets the form of an earlier one before the new recorder starts: this recorder then
upgrades it. The cameras come last, by SIGKILL while their bridges hang: the new ones continue with frames in the spools
of the old ones. At the end `up` of this release starts on the same folder.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psutil

from benchmarks.harness.system import COMMAND, Result, RunningSystem, audit, await_healthy
from benchmarks.reliability.nodes import gaps
from benchmarks.reliability.taken_back import take_back
from consumers.database.tables import SCHEMA_VERSION
from infra.local.process import Child, ProcessId, terminate
from infra.release.assets import folder as assets
from infra.state_folder import Layout
from infra.up.scrape import Samples
from lab.golden.compare import checkout
from lab.provenance import ROOT
from schemas.clock import unix_ms
from schemas.metrics import SPOOL_FRAMES

BRIDGES: Final = ("bridge-1", "bridge-2")
PROCESSORS: Final = ("processor-1", "processor-2")
ORDER: Final = ("recorder", "monitor", "console", *PROCESSORS, *BRIDGES)
"""Readers before writers: a new role reads the messages of either release."""
STOPS_WITHIN_S: Final = 60.0
DRAINS_WITHIN_S: Final = 75.0
SETTLES_WITHIN_S: Final = 60.0
SPOOLED_S: Final = 4.0
"""Time for which the bridges hang and frames stay in the spools."""
LAST_RUN_S: Final = 10.0
_CAMERA: Final = "local/cam-0"
_COUNTED: Final = (
    "frames_published", "frames_recorded", "frames_pending", "frames_lost", "frames_dead_lettered", "frames_shed",
    "duplicates_removed",
)  # fmt: skip


def newest_tag() -> str | None:
    """Return the newest tag before this commit, None without one."""
    asked = ("git", "describe", "--tags", "--abbrev=0", "HEAD")
    return subprocess.run(asked, cwd=ROOT, check=False, capture_output=True, text=True).stdout.strip() or None


def upgrade(folder: Path, baseline: str, cameras: int = 16, fps: float = 4.0, pause_s: float = 8.0) -> Result:
    """Upgrade the release `baseline`, a git revision, to this checkout."""
    load = ("--cameras", cameras, "--fps", fps, "--no-prometheus")
    state = folder / "upgrade"
    with checkout(baseline) as older, ExitStack() as stack:
        shutil.copytree(assets(), older.root / assets().relative_to(ROOT))
        options = (*load, "--processors", len(PROCESSORS), "--bridges", len(BRIDGES))
        system = stack.enter_context(RunningSystem(state, *options, checkout=older.root))
        system.await_role("fleet")
        time.sleep(2 * pause_s)
        system.process.send_signal(signal.SIGSTOP)
        roles = _Roles(system)
        stack.callback(roles.stop)
        for role in ORDER:
            roles.replace(role)
            time.sleep(pause_s)
        obeyed = _command(state)
        spooled = _replace_cameras(roles)
        time.sleep(pause_s)
        roles.new["fleet"].stop(DRAINS_WITHIN_S)
        settled = _settled(state)
        steps = _with_gaps(roles.steps, Layout(state).database)  # without the pause before the next `up`
    with RunningSystem(state, *load, "--seconds", LAST_RUN_S) as system:
        report = system.finish()
    status, found = audit(state)
    return {
        "baseline": baseline,
        "cameras": cameras,
        "fps": fps,
        "database": [roles.version, SCHEMA_VERSION],
        "roles": steps,
        "longest_gap_s": max(step["longest_gap_s"] for step in steps),
        "old_camera_obeys": obeyed,
        "frames_in_spools_of_old_cameras": spooled,
        "under_load": settled,
        "next_up": {name: report[name] for name in _COUNTED},
        "audit": {"status": status, **{name: found[name] for name in _COUNTED}},
        "load": os.getloadavg()[0],
    }


class _Roles:
    """The roles of a system whose supervisor is stopped, and their successors of this release."""

    def __init__(self, system: RunningSystem) -> None:
        self._system = system
        self.new: dict[str, Child] = {}
        self.steps: list[Result] = []
        self.version = 0
        """Version of the database that the new recorder found."""

    def pid(self, role: str) -> int:
        """Return the pid of the process that has the role now."""
        return self.new[role].pid if role in self.new else int(self._system.roles()[role]["pid"])

    def metrics(self, role: str) -> str:
        """Return the address of a role's metrics."""
        return str(self._system.roles()[role]["metrics"])

    def send(self, signum: signal.Signals, *roles: str) -> None:
        """Signal roles."""
        for role in roles:
            os.kill(self.pid(role), signum)

    def replace(self, role: str, *, kill: bool = False) -> None:
        """End a role, and start it again with this checkout's code; wait until it is healthy."""
        begun, begun_ms = time.monotonic(), unix_ms()
        process = psutil.Process(self.pid(role))
        command, environment = process.cmdline(), process.environ()
        old = ProcessId.of(process.pid)
        assert old is not None
        if kill:
            old.send(signal.SIGKILL)
        terminate(old, STOPS_WITHIN_S)
        if role == "recorder":
            self.version = take_back(Layout(self._system.state).database_url)
        log = self._system.state.with_name(f"{role}.log")
        self.new[role] = child = Child(command, log, cwd=ROOT, env=environment)
        child.start()
        await_healthy(self.metrics(role), child)
        self.steps.append({"role": role, "at_ms": begun_ms, "replaced_after_s": round(time.monotonic() - begun, 2)})

    def stop(self) -> None:
        """End the successors, the cameras first."""
        for child in reversed(self.new.values()):
            child.stop(STOPS_WITHIN_S)


def _replace_cameras(roles: _Roles) -> int:
    """Replace the cameras while frames stay in their spools. Return how many did."""
    roles.send(signal.SIGSTOP, *BRIDGES)
    time.sleep(SPOOLED_S)
    spooled = Samples.scrape([roles.metrics("fleet")], [SPOOL_FRAMES.name]).sum(SPOOL_FRAMES.name)
    roles.replace("fleet", kill=True)
    roles.send(signal.SIGCONT, *BRIDGES)
    return int(spooled)


def _command(state: Path) -> bool:
    """Return whether a camera of the other release obeys a command of this one."""
    asked = ("camera", "settings", _CAMERA, "--reset", "--state", str(state))
    return subprocess.run([*COMMAND, *asked], cwd=ROOT, check=False, capture_output=True).returncode == 0


def _settled(state: Path) -> Result:
    """Return the counts of the audit once nothing is pending, or when that took too long."""
    end = time.monotonic() + SETTLES_WITHIN_S
    while True:
        status, found = audit(state)
        if time.monotonic() > end or (status == 0 and not found["frames_pending"]):
            return {"status": status, **{name: found[name] for name in _COUNTED}}
        time.sleep(1)


def _with_gaps(steps: list[Result], database: Path) -> list[Result]:
    """Return the steps, each with the longest gap in a camera's verdicts from its begin to that of the next one."""
    found = gaps(database)
    begins = [step["at_ms"] for step in steps]
    shown = []
    for step, until_ms in zip(steps, [*begins[1:], math.inf], strict=True):
        longest = max((gap for at, gap in found if step["at_ms"] <= at < until_ms), default=0.0)
        shown.append({name: value for name, value in step.items() if name != "at_ms"} | {"longest_gap_s": longest})
    return shown
