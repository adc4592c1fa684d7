"""Many half-open requests to the console's pages and to the recorder's metrics while frames are recorded."""

from __future__ import annotations

import contextlib
import resource
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness.system import RunningSystem, audit
from benchmarks.security.attacks.outcome import Outcome
from benchmarks.security.attacks.recording import recording_p99_s
from benchmarks.security.floods.crowd import Address, Crowd, Habit
from consumers.database.queries import open_records
from infra.state_folder import Layout

CROWD = 1_600
QUIET_S = 20.0
SIEGE_S = 30.0
DESCRIPTORS = 1_024
"""The default limit of open files of a process. This benchmark grants no more."""
PER_SECOND = 500.0
"""Connections per second that each group of attackers opens at most."""
HALF = Habit((b"GET /cameras HTTP/1.1\r\nHost: 127.0.0.1\r\n",))


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Limit processes that are started within this context to `count` open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * CROWD, before[1]), before[1]))


def visit(address: Address, seconds: float) -> tuple[list[float], int]:
    """Request the cameras twice a second. Return the durations of the answers and the number of failed requests."""
    took, failed = [], 0
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        try:
            with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/api/v1/cameras", timeout=10) as answer:
                answer.read()
            took.append(time.monotonic() - begun)
        except OSError:
            failed += 1
        time.sleep(max(0.0, begun + 0.5 - time.monotonic()))
    return took, failed


def attack(folder: Path) -> Outcome:
    """Attack the pages and the metrics while eight cameras send."""
    state = folder / "system"
    with descriptors(DESCRIPTORS):
        running = RunningSystem(state, "--cameras", 8, "--fps", 5)
    with running as system:
        system.await_role("fleet")
        time.sleep(8)
        begun_ms = time.time_ns() // 10**6
        roles = system.roles()
        pages, metrics = _address(roles["console"]["listen"]), _address(roles["recorder"]["metrics"])
        visit(pages, QUIET_S)
        siege_ms = time.time_ns() // 10**6
        crowds = [Crowd(address, HALF, held=CROWD, per_second=PER_SECOND) for address in (pages, metrics)]
        took, failed = visit(pages, SIEGE_S)
        ended_ms = time.time_ns() // 10**6
        for crowd in crowds:
            crowd.close()
        stopped = system.process.poll() is not None
        system.process.send_signal(signal.SIGINT)
        status, report = system.wait(300)
    _, found = audit(state)
    with open_records(Layout(state).database_url) as records:
        before = records.latency_quantiles(begun_ms, siege_ms)
        during = records.latency_quantiles(siege_ms, ended_ms)
    expected = before.frames / (siege_ms - begun_ms) * (ended_ms - siege_ms)
    return Outcome(
        what=f"{CROWD} half-open requests at the pages and {CROWD} at the metrics, opened again when closed",
        succeeded=stopped or failed > 0 or during.frames < 0.9 * expected or found["frames_lost"] > 0,
        lost=found["frames_lost"],
        p99_before_s=before.p99,
        p99_during_s=during.p99,
        seen={
            "connections": sum(crowd.opened for crowd in crowds),
            "visits": len(took),
            "visits_failed": failed,
            "slowest_visit_s": max(took, default=None),
            "frames_recorded_before": before.frames,
            "frames_recorded_during": during.frames,
            "p99_verdict_to_record_s": {
                "before": recording_p99_s(Layout(state), begun_ms, siege_ms),
                "during": recording_p99_s(Layout(state), siege_ms, ended_ms),
            },
            "restarts": report.get("restarts"),
            "status_of_up": status,
        },
    )


def _address(listen: str) -> Address:
    host, _, port = listen.rpartition(":")
    return host, int(port)
