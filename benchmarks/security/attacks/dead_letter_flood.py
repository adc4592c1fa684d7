"""Enrolled cameras flood the dead letters of a running system with payloads under no key, each within its quota."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

from sqlalchemy import func, select

from benchmarks.harness.system import RunningSystem, audit
from benchmarks.security.attacks._enrolled import Intruder, enrolled, mqtt_of
from benchmarks.security.attacks.outcome import Outcome
from benchmarks.security.attacks.recording import recording_p99_s
from consumers.database.engine import open_engine
from consumers.database.queries import open_records
from consumers.database.tables import boots, dead_letters, frames
from consumers.settings import Bounds
from infra.state_folder import Layout
from schemas.identity import CameraId

QUIET_S = 20.0
FLOOD_S = 60.0
CLIENTS = 25
RATE = 2000.0
"""Payloads per second of all attackers together. The attackers' own work must not take the processors' CPU cores."""
PAYLOAD_BYTES = 5_000
SLACK_BYTES = 96 * 2**20
"""Allowance for SQLite's own log and the index pages, on top of the stored payloads."""


def flood(intruders: list[Intruder], seconds: float, rate: float) -> int:
    """Publish random payloads from the intruders in turn at `rate` per second in total, and return their number."""
    source = random.Random(1)
    sent = 0
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds:
        if sent > passed * rate:
            time.sleep(0.01)
            continue
        intruder = intruders[sent % len(intruders)]
        intruder.publish(intruder.own_topic, source.randbytes(PAYLOAD_BYTES))
        sent += 1
    return sent


class Disk:
    """A monitor of the recorder's storage: the peak bytes of dead letters, and of the database with its log."""

    def __init__(self, layout: Layout) -> None:
        self.letters = self.files = 0
        self._layout = layout
        self._engine = open_engine(layout.database_url, writes=False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="disk")
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            with self._engine.begin() as connection:
                held = connection.scalar(select(func.sum(dead_letters.c.stored_bytes))) or 0
            found = self._layout.folder.glob(f"{self._layout.database.name}*")
            self.letters = max(self.letters, int(held))
            self.files = max(self.files, sum(file.stat().st_size for file in found))

    def close(self) -> None:
        """Stop monitoring."""
        self._stop.set()
        self._thread.join()
        self._engine.dispose()


def attack(folder: Path) -> Outcome:
    """Flood the dead letters while eight good cameras send."""
    state = folder / "system"
    layout = Layout(state)
    with RunningSystem(state, "--cameras", 8, "--fps", 5) as system:
        system.await_role("fleet")
        time.sleep(8)
        begun_ms = time.time_ns() // 10**6
        time.sleep(QUIET_S)
        disk = Disk(layout)
        names = [CameraId(f"local/intruder-{number}") for number in range(CLIENTS)]
        intruders = [Intruder(mqtt_of(system), enrolled(layout, name)) for name in names]
        flood_ms = time.time_ns() // 10**6
        sent = flood(intruders, FLOOD_S, RATE)
        ended_ms = time.time_ns() // 10**6
        time.sleep(5)
        disk.close()
        for intruder in intruders:
            intruder.close()
        system.process.send_signal(signal.SIGINT)
        system.wait(300)
    _, found = audit(state)
    with open_records(layout.database_url) as records:
        before = records.latency_quantiles(begun_ms, flood_ms)
        during = records.latency_quantiles(flood_ms, ended_ms)
        foreign = records.foreign_count()
    engine = open_engine(layout.database_url, writes=False)
    with engine.begin() as connection:
        kept = connection.scalar(select(func.count()).select_from(frames)) or 0
        recorded = int(connection.scalar(select(func.sum(boots.c.frames))) or 0)
    engine.dispose()
    limits = Bounds()
    bound = limits.dead_letter_bytes + limits.foreign_letter_bytes
    full = disk.letters > bound or disk.files > bound + SLACK_BYTES
    return Outcome(
        what=f"{CLIENTS} enrolled cameras published {PAYLOAD_BYTES} random bytes again and again for {FLOOD_S:.0f} s",
        succeeded=full or kept < recorded or found["frames_lost"] > 0,
        lost=found["frames_lost"],
        p99_before_s=before.p99,
        p99_during_s=during.p99,
        seen={
            "payloads": sent,
            "foreign_counted": foreign,
            "most_dead_letter_bytes": disk.letters,
            "bound_of_dead_letters": bound,
            "most_database_bytes": disk.files,
            "frames_recorded": recorded,
            "frames_kept": kept,
            "p99_verdict_to_record_s": {
                "before": recording_p99_s(layout, begun_ms, flood_ms),
                "during": recording_p99_s(layout, flood_ms, ended_ms),
            },
        },
    )
