"""Faults in the middle of groups of pictures: the drill `video` of `benchmarks.reliability.drills`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import psutil
import yaml

from benchmarks.harness.data_sets import sample_video
from benchmarks.harness.quantile import quantile
from benchmarks.harness.records import rows
from benchmarks.harness.system import COMMAND, Result, RunningSystem, summary
from benchmarks.harness.waiting import wait_until
from infra.local.process import Child, last_lines
from infra.state_folder import Layout
from processors.bundle import shipped_bundle
from schemas.clock import unix_ms

_CAMERAS: Final = 3
_FPS: Final = 5.0
_PAUSE_S: Final = 10.0
"""Seconds between two faults after the recovery: the latency of 150 frames."""
_REBALANCE_S: Final = 90.0
_ASSIGNED: Final = '"partitions_assigned"'
_RECOVERY_S: Final = 120.0
_LIVE_MS: Final = 1000
"""Latency of a frame at which its camera counts as recovered."""

T = TypeVar("T")


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
    database = Layout(state).database
    spans: dict[str, Span] = {}
    with RunningSystem(state, *_scenario(folder, file, video={"group_frames": 40, "group_s": 60})) as system:
        system.await_role("fleet")
        time.sleep(2 * _PAUSE_S)

        def fault(name: str, action: Callable[[], T]) -> T:
            begun_ms = unix_ms()
            found = action()
            # Frames that were captured before the end of the action may have passed ahead of the fault.
            recovered_ms = await_recovery(database, unix_ms())
            time.sleep(_PAUSE_S)
            spans[name] = Span(begun_ms, recovered_ms, unix_ms())
            return found

        spans["before"] = Span(unix_ms() - round(1000 * _PAUSE_S), None, unix_ms())
        restarted = {
            role: round(fault(f"{role} killed", partial(system.kill, role)), 2) for role in ("processor-1", "bridge")
        }
        fault("rebalance", partial(_rebalance, state))
        fault("decoder hung", lambda: _hang_decoder(system.await_role("processor-1")))
        system.interrupt()
        shown = summary(system.finish(), state)
    lost_by = _dead_letters(state)
    return {
        "restarted_after_s": restarted,
        "recovery": {name: recovery(database, span) for name, span in spans.items()},
        "dead_letters": lost_by,
        **shown,
    }


class Span(NamedTuple):
    """A fault and the time after it, in milliseconds since 1970."""

    begun_ms: int
    recovered_ms: int | None
    """The moment at which the last camera recovered; None for a span without a fault."""
    ended_ms: int


def await_recovery(database: Path, since_ms: int, deadline_s: float = _RECOVERY_S) -> int:
    """Wait until all cameras have recovered from a fault, and return when the last one did.

    A camera has recovered when a frame that it captured after the fault was recorded within `_LIVE_MS`.
    """
    query = (
        "select min(recorded_ms) from frames where captured_ms > ? and recorded_ms - captured_ms <= ? group by camera"
    )
    end = time.monotonic() + deadline_s
    while True:
        recovered = [moment for (moment,) in rows(database, query, since_ms, _LIVE_MS)]
        if len(recovered) == _CAMERAS:
            return int(max(recovered))
        if time.monotonic() >= end:
            raise TimeoutError(f"expected {_CAMERAS} cameras to recover within {deadline_s:g} s, got {len(recovered)}")
        time.sleep(0.2)


def recovery(database: Path, span: Span) -> Result:
    """Return the seconds until a fault was over, and the latency of the frames captured after that.

    `waited_s` is the longest latency of each camera from the fault on.
    """
    begun_ms, recovered_ms, ended_ms = span
    query = "select camera, captured_ms, recorded_ms - captured_ms from frames where captured_ms between ? and ?"
    frames = rows(database, query, begun_ms, ended_ms)
    from_ms = begun_ms if recovered_ms is None else recovered_ms
    after = [waited / 1000 for _, captured_ms, waited in frames if captured_ms >= from_ms]
    waited_s: dict[str, float] = {}
    for name, _, waited in frames:
        waited_s[name] = max(waited_s.get(name, 0.0), waited / 1000)
    return {
        "recovered_after_s": None if recovered_ms is None else (recovered_ms - begun_ms) / 1000,
        "frames": len(after),
        **{f"p{percent}_s": quantile(after, percent / 100) for percent in (50, 99)},
        "waited_s": waited_s,
    }


def _dead_letters(state: Path) -> dict[str, int]:
    """Return the number of dead letters by camera and reason."""
    return dict(rows(Layout(state).database, "select camera || ': ' || reason, count(*) from dead_letters group by 1"))


def _rebalance(state: Path) -> None:
    """Let a second processor join the group and leave it again."""
    log = Layout(state).log("processor-1")
    before = log.read_text().count(_ASSIGNED)
    with added_processor(state, shipped_bundle("scene")):
        _await_assignment(log, before + 1)
        time.sleep(_PAUSE_S)
    _await_assignment(log, before + 2)


@contextmanager
def added_processor(state: Path, bundle: Path) -> Iterator[Child]:
    """Run one more processor on a running system. Raises RuntimeError if it has ended by itself."""
    command = [*COMMAND, "process", "--state", str(state), "--bundle", str(bundle)]
    added = Child(command, state.with_name("added.log"))
    added.start()
    try:
        yield added
        if (status := added.poll()) is not None:
            raise RuntimeError(f"added processor: expected it to run, got status {status}: {last_lines(added.log)}")
    finally:
        added.stop(60)


def _await_assignment(log: Path, count: int) -> None:
    wait_until(lambda: log.read_text().count(_ASSIGNED) >= count, "a rebalance", _REBALANCE_S)


def _hang_decoder(processor: int) -> None:
    """Stop the decoding process that works, the one with the most CPU time; the others wait to replace it."""
    found = [each for each in psutil.Process(processor).children() if "processors.decoding.worker" in each.cmdline()]
    max(found, key=lambda each: sum(each.cpu_times()[:2])).send_signal(signal.SIGSTOP)


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
