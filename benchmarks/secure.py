"""What TLS, certificates and rights cost: `python -m benchmarks.secure --json FILE --markdown FILE`.

`pointillist up` as fast as it goes, by default and with `--plain`, in turn, `--rounds` times over. `frames` is the
secure run's frames a second ÷ the plain one's; `bridge` the CPU time of the bridge on a frame, secure ÷ plain; `all`
that of all processes. Then a camera of a running system is revoked: `revoked_s` is the time from the command's start to
the capture of the last frame of that camera that the recorder has taken, `command_s` until the command has ended.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.document import tell
from benchmarks.pipeline import recorded, whole_pipeline
from benchmarks.system import COMMAND, RunningSystem
from infra.layout import Layout
from infra.up.settings import UpSettings, bundle_folder

CAMERAS = 4
FPS = 10
QUIET_S = 6.0
"""After which a revoked camera's frames have stopped coming."""
NAME = "local/cam-1"


def ratios(secure: dict[str, Any], plain: dict[str, Any]) -> dict[str, float]:
    """Of one round."""
    return {
        "frames": secure["frames_per_second"] / plain["frames_per_second"],
        "bridge": secure["cpu_s_per_frame_by_role"]["bridge"] / plain["cpu_s_per_frame_by_role"]["bridge"],
        "all": secure["cpu_s_per_frame"] / plain["cpu_s_per_frame"],
    }


def revocation() -> dict[str, float]:
    """How soon a revoked camera's frames are taken no more."""
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        state = Path(folder) / "state"
        with RunningSystem(state, "--cameras", CAMERAS, "--fps", FPS, "--no-prometheus", "--drain", 5) as system:
            system.await_role("fleet")
            while recorded(Layout(state)) < CAMERAS * FPS * 3:
                time.sleep(0.1)
            begun_ms = time.time_ns() / 1e6
            subprocess.run([*COMMAND, "revoke", NAME, "--state", str(state)], check=True, capture_output=True)
            command_s = time.time_ns() / 1e9 - begun_ms / 1e3
            time.sleep(QUIET_S)
            last_ms, others_ms = last_recorded(Layout(state), NAME), last_recorded(Layout(state), "local/cam-0")
            system.interrupt()
            system.wait(120)
    if others_ms < begun_ms + 1000 * QUIET_S / 2:
        raise RuntimeError("expected the other cameras to go on, they have not")
    return {"revoked_s": max(0.0, (last_ms - begun_ms) / 1e3), "command_s": command_s}


def last_recorded(layout: Layout, camera: str) -> float:
    """When the last frame of a camera was captured that the recorder has taken, in Unix milliseconds."""
    with sqlite3.connect(f"file:{layout.database}?mode=ro", uri=True) as connection:
        return float(
            connection.execute("select max(captured_ms) from frames where camera = ?", (camera,)).fetchone()[0]
        )


def markdown(document: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = ["# What TLS, certificates and rights cost", "", "`python -m benchmarks.secure` printed this.", ""]
    lines += ["| what | median | rounds |", "| --- | --- | --- |"]
    words = {
        "frames": "frames/s, secure ÷ plain",
        "bridge": "bridge CPU a frame, secure ÷ plain",
        "all": "CPU a frame of all processes, secure ÷ plain",
    }
    for name, what in words.items():
        values = [each[name] for each in document["ratios"]]
        shown = ", ".join(f"{value:.2f}" for value in values)
        lines.append(f"| {what} | {statistics.median(values):.2f} | {shown} |")
    for name, what in (("revoked_s", "s to a revoked camera's last frame"), ("command_s", "s of the command")):
        lines.append(f"| {what} | {document['revocation'][name]:.2f} | |")
    machine = document["machine"]
    lines += ["", f"{machine['cores']} cores, {machine['processor']}, load {machine['load']:.1f} at the start.", ""]
    return "\n".join(lines)


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.processor() or platform.machine(),
        "load": os.getloadavg()[0],
    }
    bundle = bundle_folder(UpSettings())
    rounds = []
    for _ in range(options.rounds):
        secure = whole_pipeline(bundle, options.cameras, options.seconds)
        plain = whole_pipeline(bundle, options.cameras, options.seconds, "--plain")
        rounds.append({"secure": secure, "plain": plain})
    document = {
        "machine": machine,
        "rounds": rounds,
        "ratios": [ratios(each["secure"], each["plain"]) for each in rounds],
        "revocation": revocation(),
    }
    if options.markdown is not None:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(markdown(document))
    tell(document, options.json)


if __name__ == "__main__":
    main()
