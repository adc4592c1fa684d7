"""Faults in the middle of groups of pictures: the drill `video` of `benchmarks.reliability.drills`."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import psutil
import yaml

from benchmarks.harness.sample_video import sample_video
from benchmarks.harness.system import COMMAND, Result, RunningSystem, summary
from infra.state_folder import Layout
from processors.bundle import shipped_bundle

_CAMERAS: Final = 3
_FPS: Final = 5.0
_PAUSE_S: Final = 8.0
_REBALANCE_S: Final = 90.0
_ASSIGNED: Final = '"partitions_assigned"'


def groups(folder: Path) -> Result:
    """Send a film by cameras of the profile `video`, and disturb the system within their groups.

    In the first run: the processor and the bridge are killed, a second processor joins and leaves, and a decoding
    process hangs. In the second: mosquitto hangs until the spools are full.
    """
    file = sample_video()
    return {"faults": _faults(folder, file), "full_spool": _full_spool(folder, file)}


def _scenario(folder: Path, file: Path, **camera: Any) -> tuple[object, ...]:
    """Write a scenario and return the options of `up` for it."""
    entry = {
        "name": "cam-{index}",
        "count": _CAMERAS,
        "source": {"kind": "video", "file": str(file), "loop": True},
        "fps": _FPS,
        "probe_share": 0.05,
        "profile": "video",
        **camera,
    }
    scenario = folder / f"{len(list(folder.iterdir()))}.yaml"
    scenario.write_text(yaml.safe_dump({"site": "local", "cameras": [entry]}))
    return "--scenario", scenario, "--bundle", shipped_bundle("scene"), "--no-prometheus"


def _faults(folder: Path, file: Path) -> Result:
    state = folder / "faults"
    with RunningSystem(state, *_scenario(folder, file, video={"group_frames": 40, "group_s": 60})) as system:
        system.await_role("fleet")
        time.sleep(2 * _PAUSE_S)
        restarted = {}
        for role in ("processor-1", "bridge"):
            restarted[role] = round(system.kill(role), 2)
            time.sleep(_PAUSE_S)
        _rebalance(state)
        time.sleep(_PAUSE_S)
        hung = _hang_decoders(system.await_role("processor-1"))
        time.sleep(_PAUSE_S)
        system.interrupt()
        shown = summary(system.finish(), state)
    return {"restarted_after_s": restarted, "hung_processes": hung, "dead_letters": _dead_letters(state), **shown}


def _dead_letters(state: Path) -> dict[str, int]:
    """Return the number of dead letters by camera and reason."""
    with sqlite3.connect(f"file:{Layout(state).database}?mode=ro", uri=True) as connection:
        query = "select camera || ': ' || reason, count(*) from dead_letters group by 1"
        return dict(connection.execute(query).fetchall())


def _rebalance(state: Path) -> None:
    """Let a second processor join the group and leave it again."""
    log = Layout(state).log("processor-1")
    command = [*COMMAND, "process", "--state", str(state), "--bundle", str(shipped_bundle("scene"))]
    before = log.read_text().count(_ASSIGNED)
    added = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_assignment(log, before + 1)
        time.sleep(_PAUSE_S)
        added.terminate()
        _await_assignment(log, before + 2)
    finally:
        added.terminate()
        added.wait(timeout=60)


def _await_assignment(log: Path, count: int) -> None:
    end = time.monotonic() + _REBALANCE_S
    while log.read_text().count(_ASSIGNED) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"expected a rebalance within {_REBALANCE_S:g} s, got none")
        time.sleep(0.2)


def _hang_decoders(processor: int) -> int:
    """Stop the decoding processes of a processor, and return their number."""
    found = [each for each in psutil.Process(processor).children() if "processors.decoding.worker" in each.cmdline()]
    for each in found:
        each.send_signal(signal.SIGSTOP)
    return len(found)


def _full_spool(folder: Path, file: Path) -> Result:
    state = folder / "full"
    options = _scenario(folder, file, spool={"max_bytes": 2**17})
    with RunningSystem(state, *options) as system:
        system.await_role("fleet")
        time.sleep(_PAUSE_S)
        system.send("mosquitto", signal.SIGSTOP)
        time.sleep(3 * _PAUSE_S)
        system.send("mosquitto", signal.SIGCONT)
        time.sleep(_PAUSE_S)
        system.interrupt()
        return summary(system.finish(), state)
