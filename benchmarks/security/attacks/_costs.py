"""The cost of an enrolled attacker: database size, audit time, the other cameras' latency, shutdown time of `up`."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.harness.intruder import Intruder, enrolled, mqtt_of
from benchmarks.harness.records import rows
from benchmarks.harness.system import RunningSystem, audit
from benchmarks.harness.waiting import await_cameras
from benchmarks.security.attacks.outcome import Outcome, p99_s
from infra.local.process import COMMAND
from infra.state_folder import Layout
from infra.up.scrape import Samples
from schemas import metrics as m
from schemas.clock import unix_ms
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey
from schemas.topics import Channel, mqtt_topic

CAMERAS: Final = 4
FPS: Final = 2
QUIET_S: Final = 30.0
ATTACK_S: Final = 60.0
AUDIT_S: Final = 120.0
"""Longest wait for an audit."""
END_S: Final = 180.0
"""Longest wait for `up` to end. After it, `up` is killed."""
MOST_GROWTH_MIB: Final = 20.0
MOST_RATIO: Final = 2.0
MOST_END_S: Final = 15.0
MALLORY: Final = CameraId("local/mallory")


class Message(NamedTuple):
    """One message of the attacker."""

    channel: Channel
    payload: bytes


Attacker = Callable[[CameraKey], Iterator[Message]]
"""A function that yields the messages of an attack, given its camera's key."""


def measured(state: Path, what: str, attacker: Attacker, per_s: float) -> Outcome:
    """Send an attacker's messages at `per_s` for a minute, and compare with the quiet period before.

    The attack has succeeded if one of these holds: the database grows by more than `MOST_GROWTH_MIB`; the audit fails;
    the audit or the other cameras' p99 takes more than `MOST_RATIO` times as long as before; `up` crashes, or ends
    later than `MOST_END_S` after Ctrl-C.
    """
    options = ("--cameras", CAMERAS, "--fps", FPS, "--no-prometheus")
    with RunningSystem(state, *options) as system:
        system.await_role("fleet")
        layout = Layout(state)
        await_cameras(system, CAMERAS)
        intruder = Intruder(mqtt_of(system), enrolled(layout, MALLORY))
        messages = attacker(intruder.enrolment.key)
        time.sleep(5)
        quiet_ms, audit_before_s = unix_ms(), audit_s(state)
        time.sleep(QUIET_S)
        before_bytes, begun_ms = database_bytes(layout), unix_ms()
        sent = _send(intruder, messages, per_s)
        ended_ms = unix_ms()
        over_quota = _over_quota(system)
        audit_after_s = audit_s(state)
        growth_mib = (database_bytes(layout) - before_bytes) / 2**20
        ended_s = end_s(system)
        intruder.close()
    before_s = p99_s(layout, quiet_ms, begun_ms, MALLORY)
    during_s = p99_s(layout, begun_ms, ended_ms, MALLORY)
    seen = {
        "messages_sent": sent["messages"],
        "mib_sent": round(sent["bytes"] / 2**20, 1),
        "database_growth_mib": round(growth_mib, 2),
        "audit_before_s": audit_before_s,
        "audit_after_s": audit_after_s,
        "seconds_from_ctrl_c_to_the_end_of_up": ended_s,
        "messages_not_taken": over_quota,
        "dead_letters": dict(rows(layout.database, "select reason, count(*) from dead_letters group by reason")),
        "thrown_out": intruder.thrown_out,
    }
    bounded = (
        growth_mib <= MOST_GROWTH_MIB
        and _at_most(audit_after_s, audit_before_s)
        and _at_most(during_s, before_s)
        and ended_s is not None
        and ended_s <= MOST_END_S
    )
    return Outcome(what, not bounded, _lost_of_others(state), before_s, during_s, seen)


def audit_s(state: Path) -> float | None:
    """Return the seconds that `pointillist audit` takes, or None if it fails or does not end within `AUDIT_S`."""
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [*COMMAND, "audit", "--state", str(state), "--json"], check=False, capture_output=True, timeout=AUDIT_S
        )
    except subprocess.TimeoutExpired:
        return None
    # Its exit status is also 1 if frames are lost. A failed audit prints no JSON.
    return round(time.monotonic() - begun, 2) if done.stdout else None


def database_bytes(layout: Layout) -> int:
    """Return the size of the recorder's database with its write-ahead log."""
    files = (layout.database, layout.database.with_name(f"{layout.database.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def _send(intruder: Intruder, messages: Iterator[Message], per_s: float) -> Counter[str]:
    done: Counter[str] = Counter()
    begun = time.monotonic()
    while (now := time.monotonic()) < begun + ATTACK_S:
        ahead_s = done["messages"] / per_s - (now - begun)
        if ahead_s > 0:
            time.sleep(ahead_s)
        message = next(messages)
        intruder.publish(mqtt_topic(MALLORY, message.channel), message.payload)
        done["messages"] += 1
        done["bytes"] += len(message.payload)
    return done


def _over_quota(system: RunningSystem) -> int:
    places = [entry["metrics"] for entry in system.roles().values() if entry.get("metrics")]
    return round(Samples.scrape(places).sum(m.BRIDGE_OVER_QUOTA.name))


def end_s(system: RunningSystem) -> float | None:
    """Return the seconds from Ctrl-C to the end of `up`.

    None if that is more than `END_S`, or if `up` has crashed: before Ctrl-C, or without a report.
    """
    if system.process.poll() is not None:
        return None
    begun = time.monotonic()
    system.interrupt()
    try:
        _, report = system.wait(END_S)
    except subprocess.TimeoutExpired:
        return None
    return round(time.monotonic() - begun, 2) if report else None


def _lost_of_others(state: Path) -> int:
    """Return how many frames of the good cameras are lost after everything has drained."""
    lost = audit(state)[1]["lost"]
    return sum(last - first + 1 for each in lost if each["camera_id"] != MALLORY for first, last in each["ranges"])


def _at_most(now: float | None, before: float | None) -> bool:
    return now is not None and before is not None and now <= MOST_RATIO * before
