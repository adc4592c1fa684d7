"""A device without a battery-backed clock boots in 1970, loses its connection to Kafka, and then has its clock set."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.system import RunningSystem, audit
from benchmarks.security.attacks.outcome import Outcome
from infra.state_folder import Layout
from infra.up.system_state import CameraState, camera_states
from schemas.identity import CameraId

CAMERA: Final = CameraId("device/door")
OUTAGE_S: Final = 12.0
SCENARIO: Final = "site: device\ncameras:\n  - {name: door, fps: 10}\n"


def attack(folder: Path) -> Outcome:
    """Set the clock years forward during an outage, then an hour back while everything works."""
    state, offset = folder / "state", folder / "offset"
    in_1970 = 3600 - time.time()
    with RunningSystem(state, "--cameras", 2, "--drain-s", 60) as system:
        system.await_role("fleet")  # the role that is started last
        layout = Layout(state.resolve())
        with _device(system, offset, in_1970):
            _await(layout, "online")
            system.send("bridge", signal.SIGSTOP)
            time.sleep(OUTAGE_S / 2)
            _set(offset, 0.0)
            time.sleep(OUTAGE_S / 2)
            system.send("bridge", signal.SIGCONT)
            _await(layout, "online")
            seen = _watch(layout, 5.0)
            _set(offset, -3600.0)
            seen_after = _watch(layout, 25.0)
        system.process.send_signal(signal.SIGINT)
        system.wait(180)
    _, found = audit(state)
    silent = seen["silent"] + seen_after["silent"]
    return Outcome(
        what="in the middle of an outage the clock of a camera was set forward by 56 years, and later back by an hour",
        succeeded=bool(found["frames_shed"] or found["frames_lost"] or silent),
        lost=found["frames_lost"],
        seen={
            "frames_published": found["frames_published"],
            "frames_recorded": found["frames_recorded"],
            "frames_shed": found["frames_shed"],
            "frames_pending": found["frames_pending"],
            "looks_that_showed_it_silent": silent,
            "looks": seen["looks"] + seen_after["looks"],
            "longest_age_s": max(seen["longest_age_s"], seen_after["longest_age_s"]),
        },
    )


@contextmanager
def _device(system: RunningSystem, offset: Path, offset_s: float) -> Iterator[None]:
    """Run the camera as a separate process whose clock offset is in the file."""
    layout = Layout(system.state.resolve())
    layout.issue_key(CAMERA)
    scenario = offset.with_name("device.yaml")
    scenario.write_text(SCENARIO)
    _set(offset, offset_s)
    command = [sys.executable, "-m", "benchmarks.security.attacks._set_clock", offset, "fleet", "--scenario", scenario]
    with offset.with_name("device.log").open("wb") as log:
        process = subprocess.Popen([*map(str, command), "--state", str(system.state)], stdout=log, stderr=log)
    try:
        yield
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def _set(offset: Path, seconds: float) -> None:
    fresh = offset.with_suffix(".new")
    fresh.write_text(str(seconds))
    fresh.replace(offset)


def _look(layout: Layout) -> CameraState | None:
    return next((camera for camera in camera_states(layout) if camera.name == CAMERA), None)


def _await(layout: Layout, state: str, deadline_s: float = 60.0) -> None:
    end = time.monotonic() + deadline_s
    while (found := _look(layout)) is None or found.state != state:
        if time.monotonic() > end:
            raise TimeoutError(f"state of {CAMERA}: expected {state} within {deadline_s:g} s, got {found}")
        time.sleep(0.2)


def _watch(layout: Layout, seconds: float) -> dict[str, Any]:
    """Count the states of the camera over some seconds, as `pointillist cameras` shows them."""
    looks = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        looks.append(_look(layout))
        time.sleep(0.25)
    silent = sum(look is not None and look.state == "silent" for look in looks)
    ages_s = [look.age_s or 0.0 for look in looks if look is not None]
    return {"looks": len(looks), "silent": silent, "longest_age_s": max(ages_s, default=0.0)}
