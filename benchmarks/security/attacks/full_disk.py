"""The disk of a running system fills to the last byte, and is emptied again."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.system import RunningSystem, audit
from benchmarks.security.attacks.outcome import Outcome
from consumers.database.queries import open_records
from infra.state_folder import Layout
from infra.up.scrape import Samples
from schemas.metrics import DISK_FREE, RECORDED

DISK: Final = "512m"
"""Kafka starts with about 60 MiB, and the system needs space to start."""
RUN_S: Final = 90
FULL_S: Final = 25.0
_STEP: Final = 2**20


def attack(folder: Path) -> Outcome:
    """Fill the disk for 25 s while eight cameras send.

    The attack succeeds if `up` ends or the audit counts a frame as lost.
    """
    with _disk(folder / "state") as state:
        with RunningSystem(state, "--cameras", 8, "--fps", 5, "--seconds", RUN_S, "--drain-s", 120) as system:
            system.await_role("fleet")
            time.sleep(15)
            filled_ms = _now_ms()
            ballast = state / "ballast"
            end = time.monotonic() + FULL_S
            left: list[float] = []
            while time.monotonic() < end and system.process.poll() is None:
                _fill(ballast)
                left.append(_metric(system, lambda samples: samples.sum(DISK_FREE.name, holds="database")))
                time.sleep(0.5)
            emptied_ms = _now_ms()
            recorded_while_full = _recorded(state)
            ballast.unlink()
            status, report = system.wait(RUN_S + 300)
            ended_ms = _now_ms()
        audited, found = audit(state)
        with open_records(Layout(state).database_url) as records:
            # The last frames before the attack are still in flight when it begins.
            before = records.latency_quantiles(0, filled_ms - 5_000).p99
            during = records.latency_quantiles(filled_ms, emptied_ms).p99
            after = records.latency_quantiles(emptied_ms + 15_000, ended_ms).p99
        text = system.output()
    return Outcome(
        what=f"filled the disk of the state folder for {FULL_S:g} s",
        succeeded=status != 0 or audited != 0 or "Traceback" in text,
        lost=int(found["frames_lost"]),
        p99_before_s=before,
        p99_during_s=during,
        seen={
            "p99_after_s": after,
            "exit_status": status,
            "said": [line for line in text.splitlines() if "disk of" in line or line.startswith("unread")],
            "least_free_bytes": min((value for value in left if value >= 0), default=None),
            "restarts": report.get("restarts"),
            "recorded_until_room": recorded_while_full,
            **{name: found[name] for name in ("frames_published", "frames_recorded", "frames_shed", "frames_pending")},
        },
    )


def _now_ms() -> int:
    return time.time_ns() // 10**6


def _fill(ballast: Path) -> None:
    """Fill the free space to the last byte."""
    for step in (_STEP, 4096, 1):
        with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
            while file.write(bytes(step)) == step:
                pass


def _metric(system: RunningSystem, ask: Callable[[Samples], float]) -> float:
    """Return a figure from the recorder's metrics endpoint, or −1 while the endpoint does not answer."""
    address: Any = system.roles().get("recorder", {}).get("metrics")
    samples = Samples.scrape([address] if address else [])
    return ask(samples) if samples.sum(RECORDED.name) else -1.0


def _recorded(state: Path) -> int:
    with open_records(Layout(state).database_url) as records:
        return records.byte_sums().frames


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[Path]:
    """Mount a small disk in memory. Requires root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
