"""Many cameras that connect at once by TLS, each with a separate certificate: seconds until all are online."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.harness.system import RunningSystem
from infra.up.scrape import Samples
from schemas import metrics as m

FPS: Final = 0.05
MOST_FPS: Final = 100.0
"""Frames per second of all cameras together: the start is measured, and not a system behind its load."""
STAYED_S: Final = 20.0
"""Observation time after all are online."""
PATIENCE_S: Final = 400.0
POLL_S: Final = 0.25


def compared(cameras: int, checkout: Path, name: str, rounds: int) -> dict[str, Any]:
    """Return the median round of `crowd`, with its times ÷ those of another checkout, measured in turns."""
    own, baseline = [], []
    for _ in range(rounds):
        baseline.append(crowd(cameras, checkout))
        own.append(crowd(cameras))
    ratios = [mine["online_s"] / its["online_s"] for mine, its in zip(own, baseline, strict=True)]
    middle = sorted(own, key=lambda found: found["online_s"])[len(own) // 2]
    return middle | {
        "rounds_online_s": [found["online_s"] for found in own],
        "baseline": name,
        "baseline_online_s": [found["online_s"] for found in baseline],
        "online_over_baseline": statistics.median(ratios),
        "fleet_cpu_over_baseline": statistics.median(
            mine["cpu_s"]["fleet"] / its["cpu_s"]["fleet"] for mine, its in zip(own, baseline, strict=True)
        ),
    }


def crowd(cameras: int, checkout: Path | None = None) -> dict[str, Any]:
    """Connect `cameras` at once and return the times; `checkout` is another one whose system is measured.

    `online_s`: from the start of the process of all cameras until the last one is connected. `connecting_s`: from the
    first connection until the last one. `cpu_s`: CPU seconds of each role at the last one. `thrown_out`: reconnections
    up to then and in the observation time.
    """
    fps = min(FPS, MOST_FPS / cameras)
    load = ("--cameras", cameras, "--fps", fps, "--probe-share", 0, "--no-prometheus", "--drain-s", 120)
    with (
        tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder,
        RunningSystem(Path(folder) / "state", *load, checkout=checkout) as system,
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
        cpu_s = system.cpu_seconds()
        time.sleep(STAYED_S)
        found = _look(system)
        used = {role: system.resident_bytes(role) for role in ("mosquitto", "fleet")}
        system.interrupt()
        status, report = system.wait(400)
    return {
        "cameras": cameras,
        "online_s": online_s,
        "connecting_s": online_s - (first_s or 0.0),
        "cpu_s": cpu_s,
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
