"""Many cameras that connect at once by TLS, each with a separate certificate."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.harness.system import RunningSystem
from infra.up.scrape import Samples
from schemas import metrics as m

FPS: Final = 0.05
STAYED_S: Final = 20.0
"""Observation time after all are online."""
PATIENCE_S: Final = 400.0
POLL_S: Final = 0.25


def crowd(cameras: int) -> dict[str, Any]:
    """Connect `cameras` at once and return the times.

    `online_s`: from the start of the process of all cameras until the last one is connected. `connecting_s`: from the
    first connection until the last one. `thrown_out`: reconnections up to then and in the observation time.
    """
    load = ("--cameras", cameras, "--fps", FPS, "--probe-share", 0, "--no-prometheus", "--drain-s", 120)
    with (
        tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder,
        RunningSystem(Path(folder) / "state", *load) as system,
    ):
        pid = system.await_role("fleet", deadline_s=400)
        begun = psutil.Process(pid).create_time()
        first_s = online_s = None
        while online_s is None:
            found = _look(system)
            after_s = time.time() - begun
            if found["online"] and first_s is None:
                first_s = after_s
            if found["online"] >= cameras:
                online_s = after_s
            elif after_s > PATIENCE_S:
                raise TimeoutError(f"cameras: expected {cameras} online within {PATIENCE_S:g} s, got {found}")
            time.sleep(POLL_S)
        time.sleep(STAYED_S)
        found = _look(system)
        used = {role: system.resident_bytes(role) for role in ("mosquitto", "fleet")}
        system.interrupt()
        status, report = system.wait(400)
    return {
        "cameras": cameras,
        "online_s": online_s,
        "connecting_s": online_s - (first_s or 0.0),
        "thrown_out": found["reconnects"],
        "taken_over": found["takeovers"],
        "online_after": found["online"],
        "resident_bytes": used,
        "frames_lost": report.get("frames_lost"),
        "status_of_up": status,
    }


def _look(system: RunningSystem) -> dict[str, float]:
    roles = system.roles()
    samples = Samples.scrape([roles[role]["metrics"] for role in ("fleet", "bridge") if role in roles])
    return {
        "online": sum(samples.sum(m.CAMERA_TASKS.name, phase=phase) for phase in ("capturing", "failing")),
        "reconnects": samples.sum(m.CAMERA_RECONNECTS.name),
        "takeovers": samples.sum(m.MQTT_REFUSALS.name, kind="takeover"),
    }
