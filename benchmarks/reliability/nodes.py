"""The drill `nodes`: each of three Kafka nodes dies, hangs, loses its disk or restarts; see
`benchmarks.reliability.drills`.

Each kind of fault has its own run, in which it hits one node after the other, the leading controller included. The next
fault waits until every partition has all its replicas again. `longest_gap_s` is the longest time between two verdicts
of one camera, from one record in the database to the next. The processor neither rebuilds frames nor checks probes: its
cost per frame is not measured here. `load` is the machine's load average over a minute, at the start and at the end.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Final

from benchmarks.harness.records import rows
from benchmarks.harness.system import Result, RunningSystem, summary
from infra.local.kafka_quorum import SINGLE
from infra.local.replicas import await_replicas
from infra.local.service import instance_names
from infra.state_folder import Layout
from schemas.clock import unix_ms

NODES: Final = 3
SETTLED_S: Final = 10.0
"""Wait before the first fault, and after the last one before the cameras end."""
HANG_S: Final = 12.0
"""Six times the controller's timeout for a node's heartbeat."""
COPIES_S: Final = 120.0
START_S: Final = 300.0
LIGHT: Final = ("--mode", "none", "--probe-share", 0)

Fault = Callable[[RunningSystem, str], None]


def _kill(system: RunningSystem, node: str) -> None:
    system.kill(node)


def _hang(system: RunningSystem, node: str) -> None:
    system.send(node, signal.SIGSTOP)
    time.sleep(HANG_S)
    system.send(node, signal.SIGCONT)


def _lose_disk(system: RunningSystem, node: str) -> None:
    """Kill the node and delete everything it has written, its part of Kafka's own metadata included."""
    lost = system.state / f"{node}-lost"
    (system.state / node / "data").rename(lost)
    system.kill(node)
    shutil.rmtree(lost)


def _restart(system: RunningSystem, node: str) -> None:
    pid = system.await_role(node)
    os.kill(pid, signal.SIGTERM)
    system.await_role(node, but_not=pid)


FAULTS: Final[dict[str, Fault]] = {"kill": _kill, "hang": _hang, "disk": _lose_disk, "rolling": _restart}


def nodes(
    folder: Path,
    seconds: float = 300.0,
    cameras: int = 32,
    fps: float = 4.0,
    faults: Sequence[str] = tuple(FAULTS),
    pause_s: float = 30.0,
    options: Sequence[object] = (),
) -> Result:
    """Run each of `faults` for `seconds`, on one node after the other, with `pause_s` between two."""
    return {fault: _run(folder / fault, fault, seconds, cameras, fps, pause_s, options) for fault in faults}


def _run(
    state: Path, fault: str, seconds: float, cameras: int, fps: float, pause_s: float, options: Sequence[object]
) -> Result:
    load = ("--cameras", cameras, "--fps", fps, "--seconds", seconds, "--kafka-nodes", NODES, *LIGHT)
    events: list[Result] = []
    loads = [os.getloadavg()[0]]
    with RunningSystem(state, *load, *options) as system:
        system.await_role("fleet", deadline_s=START_S)
        end = time.monotonic() + seconds - SETTLED_S
        time.sleep(min(SETTLED_S, pause_s))
        for node in cycle(instance_names(SINGLE, NODES)):
            begun, begun_ms = time.monotonic(), unix_ms()
            FAULTS[fault](system, node)
            asyncio.run(await_replicas(system.kafka(), COPIES_S))
            whole = time.monotonic()
            events.append({"node": node, "at_ms": begun_ms, "all_copies_after_s": round(whole - begun, 2)})
            # A rolling restart continues with the next node at once.
            rests = pause_s if fault != "rolling" or node == instance_names(SINGLE, NODES)[-1] else 0.0
            if whole + rests + (HANG_S if fault == "hang" else 0.0) >= end:
                break
            time.sleep(rests)
        report = system.finish()
    loads.append(os.getloadavg()[0])
    found = gaps(Layout(state).database)
    for event, following in zip(events, [*(event["at_ms"] for event in events[1:]), None], strict=True):
        since = event.pop("at_ms")
        event["longest_gap_s"] = round(
            max((s for at, s in found if at >= since and (not following or at < following)), default=0.0), 2
        )
    given: Result = {"cameras": cameras, "fps": fps, "seconds": seconds, "load": loads}
    return {"longest_gap_s": max(s for _, s in found), "faults": events, **given, **summary(report, state)}


def gaps(database: Path, below: str = "~") -> list[tuple[int, float]]:
    """Return record time in Unix ms and seconds since the camera's last verdict, for each verdict but the first.

    Only cameras whose name sorts before `below` count.
    """
    query = (
        "select recorded_ms, (recorded_ms - lag(recorded_ms) over (partition by camera order by recorded_ms)) / 1000.0 "
        "from frames where camera < ?"
    )
    return [(at, gap) for at, gap in rows(database, query, below) if gap is not None]
