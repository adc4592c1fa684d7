"""Waits for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.harness.records import rows_so_far
from benchmarks.harness.system import RunningSystem
from infra.state_folder import Layout


def wait_until(
    holds: Callable[[], object],
    what: str,
    within_s: float,
    *,
    every_s: float = 0.2,
    system: RunningSystem | None = None,
) -> float:
    """Call `holds` every `every_s` until it returns true, and return the seconds that it took.

    Raises TimeoutError after `within_s`, and RuntimeError if `up` of the `system` ends before. Both name `what`.
    """
    begun = time.monotonic()
    while not holds():
        if system is not None and system.process.poll() is not None:
            raise RuntimeError(f"{what}: expected `up` to run until then, got its end: {system.output()[-2000:]}")
        if time.monotonic() - begun > within_s:
            output = f": {system.output()[-2000:]}" if system is not None else ""
            raise TimeoutError(f"{what}: expected within {within_s:g} s, got a timeout{output}")
        time.sleep(every_s)
    return time.monotonic() - begun


def await_cameras(system: RunningSystem, cameras: int, within_s: float = 60.0) -> None:
    """Wait until a frame of each of the system's `cameras` is recorded. Raises the errors of `wait_until`."""
    database, query = Layout(system.state).database, "select distinct camera from frames"
    what = f"frames of {cameras} cameras"
    wait_until(lambda: len(rows_so_far(database, query)) >= cameras, what, within_s, system=system)
