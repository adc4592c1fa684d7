"""Cameras that start together by TLS, until all are online: `python -m benchmarks.scale.online --cameras 10000`.

`pointillist up` starts on an empty state folder. Each camera has a certificate and a connection of its own, to the real
mosquitto. `connected_s` is from the start of the cameras' first process until the broker has accepted every connection,
`recorded_s` until the recorder has stored an announcement of every camera, which the console shows. `online_s` is the
later of the two. `status_unknown` counts the cameras of which only `meta` is stored at the end. CPU seconds are those
at `online_s`. Memory is the peak until `--stays` seconds later, in which no connection may be lost. Keys and
certificates are issued before the start: `before_s` has the seconds from the command to the first process.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import machine, report
from benchmarks.harness.records import rows
from benchmarks.harness.system import RunningSystem
from infra.state_folder import Layout
from infra.up.scrape import Samples
from schemas import metrics as m
from schemas.pointillist_pb2 import UNKNOWN

FPS: Final = 0.05
MOST_FPS: Final = 100.0
"""Frames per second of all cameras together: the start is measured, and not a system behind its load."""
PATIENCE_S: Final = 400.0
POLL_S: Final = 0.25


def online(cameras: int, fleets: int | None, stays_s: float) -> dict[str, Any]:
    """Start the cameras in `fleets` processes, None for the default, and return the times and costs."""
    fps = min(FPS, MOST_FPS / cameras)
    load = ["--cameras", cameras, "--fps", fps, "--probe-share", 0, "--no-prometheus"]
    load += ["--drain-s", 240] + (["--fleets", fleets] if fleets else [])
    asked = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder,
        RunningSystem(Path(folder) / "state", *load) as system,
    ):
        begun = _first_process(system)
        started_s = time.monotonic() - asked
        at_s: dict[str, float] = {}
        while len(at_s) < 2:
            found, after_s = _counts(system), time.time() - begun
            at_s |= {name: after_s for name in ("connected", "recorded") if found[name] >= cameras and name not in at_s}
            if after_s > PATIENCE_S:
                raise TimeoutError(f"cameras: expected {cameras} online within {PATIENCE_S:g} s, got {found}")
            time.sleep(POLL_S)
        cpu_s, load_1m = system.cpu_seconds(), os.getloadavg()[0]
        time.sleep(stays_s)
        found, names = _counts(system), system.fleets()
        peak = {name: _peak_bytes(system.await_role(name)) for name in (*names, "mosquitto")}
        system.interrupt()
        status, ended = system.wait(400)
    return {
        "cameras": cameras,
        "processes": len(names),
        "tls": True,
        "frames_per_second": cameras * fps,
        "online_s": max(at_s.values()),
        "connected_s": at_s["connected"],
        "recorded_s": at_s["recorded"],
        "before_s": started_s,
        "cpu_ms_per_camera": 1000 * sum(cpu_s[name] for name in names) / cameras,
        "mosquitto_cpu_ms_per_camera": 1000 * cpu_s["mosquitto"] / cameras,
        "cpu_s": cpu_s,
        "peak_bytes_per_camera": sum(peak[name] for name in names) / cameras,
        "mosquitto_peak_bytes_per_camera": peak["mosquitto"] / cameras,
        "peak_bytes": peak,
        "load_1m": load_1m,
        "reconnects": found["reconnects"],
        "status_unknown": found["status_unknown"],
        "connected_after": found["connected"],
        "frames_lost": ended.get("frames_lost"),
        "status": status,
    }


def _first_process(system: RunningSystem) -> float:
    """Return the Unix time at which the first process of the cameras started."""
    while not system.fleets():
        if system.process.poll() is not None:
            raise RuntimeError(f"`up`: expected cameras, got its end: {system.output()[-2000:]}")
        time.sleep(POLL_S / 5)
    return min(psutil.Process(entry["pid"]).create_time() for entry in system.fleets().values())


def _counts(system: RunningSystem) -> dict[str, float]:
    samples = Samples.scrape([entry["metrics"] for entry in system.fleets().values()])
    return {
        "connected": sum(samples.sum(m.CAMERA_TASKS.name, phase=phase) for phase in ("capturing", "failing")),
        **_recorded(Layout(system.state).database),
        "reconnects": samples.sum(m.CAMERA_RECONNECTS.name),
    }


def _recorded(database: Path) -> dict[str, int]:
    """Return the number of cameras that the recorder has stored, and of those without a status."""
    query = "select count(*), count(*) filter (where state = ?) from cameras"
    ((recorded, unknown),) = rows(database, query, UNKNOWN)
    return {"recorded": recorded, "status_unknown": unknown}


def _peak_bytes(pid: int) -> int:
    """Return the largest resident memory of a process so far."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])


def main() -> None:
    """Measure once, and print the result."""
    arguments = command_line(
        __doc__,
        cameras=10_000,
        fleets=Option(int, "Processes of the cameras (default: that of `up`)."),
        stays=Option(20.0, "Seconds of observation after all are online."),
        json=Option(Path, "Also write the result to this file."),
    )
    result = online(arguments.cameras, arguments.fleets, arguments.stays)
    report({"machine": machine(), "result": result}, arguments.json)


if __name__ == "__main__":
    main()
