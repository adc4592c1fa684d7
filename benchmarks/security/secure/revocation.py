"""The delay until a revoked camera's frames are rejected."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.records import rows
from benchmarks.harness.system import COMMAND, RunningSystem
from benchmarks.speed.pipeline import await_recorded
from infra.state_folder import Layout

CAMERAS: Final = 4
FPS: Final = 10
QUIET_S: Final = 6.0
"""Time after which a revoked camera's frames have stopped arriving."""
NAME: Final = "local/cam-1"
TIMES: Final = 3


def revocation() -> dict[str, Any]:
    """Revoke a camera in some systems, and return the figures of the slowest.

    `revoked_s` is the time from the command's start to the capture of the camera's last recorded frame, `command_s`
    until the command has ended.
    """
    found = [_once() for _ in range(TIMES)]
    return max(found, key=lambda each: each["revoked_s"]) | {"all_revoked_s": [each["revoked_s"] for each in found]}


def _once() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        state = Path(folder) / "state"
        with RunningSystem(state, "--cameras", CAMERAS, "--fps", FPS, "--no-prometheus", "--drain-s", 30) as system:
            system.await_role("fleet")
            await_recorded(system, CAMERAS * FPS * 3)
            begun_ms = time.time_ns() / 1e6
            subprocess.run([*COMMAND, "revoke", NAME, "--state", str(state)], check=True, capture_output=True)
            command_s = time.time_ns() / 1e9 - begun_ms / 1e3
            time.sleep(QUIET_S)
            system.interrupt()
            system.wait(300)
        # Read only now: on a busy machine, frames that were accepted in time are recorded late.
        last_ms, others_ms = _last_recorded(Layout(state), NAME), _last_recorded(Layout(state), "local/cam-0")
    if others_ms < begun_ms + 1000 * QUIET_S / 2:
        raise RuntimeError("other cameras: expected their frames to continue, got none")
    return {"revoked_s": max(0.0, (last_ms - begun_ms) / 1e3), "command_s": command_s}


def _last_recorded(layout: Layout, camera: str) -> float:
    """Return the capture time of a camera's last recorded frame, in Unix milliseconds."""
    ((last_ms,),) = rows(layout.database, "select max(captured_ms) from frames where camera = ?", camera)
    return float(last_ms)
