"""Strangers flood the dead letters of a running system with payloads under no key."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import func, select

from benchmarks.attacks.outcome import Outcome
from benchmarks.attacks.recording import recording_p99_s
from benchmarks.system import RunningSystem, audit
from consumers.database.engine import open_engine
from consumers.database.queries import open_records
from consumers.database.tables import boots, dead_letters, frames
from consumers.settings import Bounds
from infra.layout import Layout

QUIET_S = 20.0
FLOOD_S = 60.0
CLIENTS = 2
RATE = 1000.0
"""Payloads a second of each: a stranger's own work must not be what takes the processors' cores here."""
WINDOW = 200
PAYLOAD_BYTES = 5_000
SLACK_BYTES = 96 * 2**20
"""What SQLite's own log and the index pages may add to what is stored."""


def flood(host: str, port: int, seconds: float, seed: int) -> int:
    """Publish random payloads as strange cameras at QoS 1; how many."""
    source = random.Random(seed)
    room = threading.Semaphore(WINDOW)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_publish = lambda *_: room.release()
    client.max_inflight_messages_set(WINDOW)
    client.connect(host, port)
    client.loop_start()
    sent = 0
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds:
        if sent > passed * RATE:
            time.sleep(0.01)
        elif room.acquire(timeout=1):
            topic = f"pointillist/v1/stranger/cam-{source.randrange(1000)}/frame"
            client.publish(topic, source.randbytes(PAYLOAD_BYTES), qos=1)
            sent += 1
    client.disconnect()
    client.loop_stop()
    return sent


class Disk:
    """Watches what the recorder holds: the most bytes of dead letters, and of the database with its log."""

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
        """Look no more."""
        self._stop.set()
        self._thread.join()
        self._engine.dispose()


def attack(folder: Path) -> Outcome:
    """Flood beside eight cameras."""
    state = folder / "system"
    layout = Layout(state)
    with RunningSystem(state, "--cameras", 8, "--fps", 5, "--plain") as system:
        system.await_role("fleet")
        time.sleep(8)
        begun_ms = time.time_ns() // 10**6
        time.sleep(QUIET_S)
        host, _, port = system.roles()["mosquitto"]["listen"].partition(":")
        disk = Disk(layout)
        flood_ms = time.time_ns() // 10**6
        sent: list[int] = []
        strangers = [
            threading.Thread(target=lambda seed=seed: sent.append(flood(host, int(port), FLOOD_S, seed)))
            for seed in range(CLIENTS)
        ]
        for stranger in strangers:
            stranger.start()
        for stranger in strangers:
            stranger.join()
        ended_ms = time.time_ns() // 10**6
        time.sleep(5)
        disk.close()
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
        what=f"{CLIENTS} strangers published {PAYLOAD_BYTES} random bytes again and again for {FLOOD_S:.0f} s",
        succeeded=full or kept < recorded or found["frames_lost"] > 0,
        lost=found["frames_lost"],
        p99_before_s=before.p99,
        p99_during_s=during.p99,
        seen={
            "payloads": sum(sent),
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
