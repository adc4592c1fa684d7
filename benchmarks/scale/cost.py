"""Cost against load: `python -m benchmarks.scale.cost [--out build/cost] [--short]`.

Two sweeps of the whole system, every process on the same few cores:

    cameras   8 → 10,000 cameras that together send the same 250 frames a second
    frames    32 cameras that together send 16 frames a second, then four times as many, until not all are recorded

Each cell starts `pointillist up` on an empty state folder. It waits until `--warm` seconds after the first frame and
the last camera's connection. Then it measures for `--window` seconds: CPU time of each role, frames recorded, and
seconds from capture to record. At the end of the window it reads the memory of each role, and after the run the losses.

Results are written to `rows.json` at once, and a cell in that file is not measured again. The table and the plots are
made from that file; `--only-pages` does only this. All cells take a quarter of an hour. `--short` measures fewer cells
for a shorter time. `--cameras 8,2000 --total 50` measures one custom sweep. With `--baseline CHECKOUT` another checkout
measures all its cells afterwards, and `over_baseline` has the CPU time per frame of all roles ÷ its, by the number of
cameras, for cells in which both record what is asked. Run nothing else on the machine meanwhile.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil

from benchmarks.harness.checkout import run_in_checkout
from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.quantile import quantile
from benchmarks.harness.records import rows, rows_so_far
from benchmarks.harness.system import RunningSystem, audit, undisturbed
from benchmarks.harness.waiting import wait_until
from benchmarks.pages.cost_pages import write_pages
from infra.state_folder import Layout
from infra.up.processes import is_healthy
from schemas.runtime.json_files import read_json, write_json

TOTAL_FPS: Final = 250.0
CAMERAS: Final = (8, 512, 4_096, 10_000)
SHORT_CAMERAS: Final = (8, 512)
FRAMES_CAMERAS: Final = 32
FRAMES: Final = (16, 64, 256, 1_024, 4_096)
SHORT_FRAMES: Final = (16, 128)
HELD: Final = 0.95
"""Share of the requested frame rate below which a system counts as saturated."""
_DRAIN_S: Final = 240.0
_START_S: Final = 600.0

Cell = dict[str, Any]
T = TypeVar("T", int, float)


def memory_bytes(system: RunningSystem) -> dict[str, int]:
    """Return the private memory (unique set size) of each role."""
    return {
        role: int(psutil.Process(entry["pid"]).memory_full_info().uss)
        for role, entry in system.roles().items()
        if psutil.pid_exists(entry["pid"])
    }


def _connected(system: RunningSystem) -> bool:
    fleets = system.fleets().values()
    return bool(fleets) and all(is_healthy(entry["metrics"]) for entry in fleets)


def _by_role(values: dict[str, T]) -> dict[str, T]:
    """Return the values with those of all processes of a divided fleet in one, as `fleet`."""
    found: dict[str, T] = {}
    for name, value in values.items():
        role = "fleet" if name.startswith("fleet-") else name
        found[role] = found[role] + value if role in found else value
    return found


def await_all(system: RunningSystem) -> None:
    """Wait until every camera has its connection and the first frame is recorded."""
    database = Layout(system.state).database
    wait_until(
        lambda: _connected(system) and rows_so_far(database, "select 1 from frames limit 1"),
        "all cameras and a frame",
        _START_S,
        system=system,
    )


def measure(folder: Path, cameras: int, fps: float, warm_s: float, window_s: float) -> Cell:
    """Measure one cell. `fps` is the rate of each camera."""
    state = folder / f"{cameras}-{fps:g}"
    options = ("--cameras", cameras, "--fps", fps, "--no-prometheus", "--drain-s", _DRAIN_S)
    with RunningSystem(state, *options) as system:
        await_all(system)
        time.sleep(warm_s)
        from_s, before = time.time(), system.cpu_seconds()
        time.sleep(window_s)
        until_s, after = time.time(), system.cpu_seconds()
        memory = memory_bytes(system)
        system.interrupt()
        status, report = system.wait(_DRAIN_S + _START_S)
        undisturbed(report, system.output())
    query = "select recorded_ms - captured_ms from frames where recorded_ms >= ? and recorded_ms < ?"
    window_ms = round(1000 * from_s), round(1000 * until_s)
    late_s = [ms / 1000 for (ms,) in rows(Layout(state).database, query, *window_ms)]
    _, found = audit(state)
    frames = len(late_s)
    asked = cameras * fps * (until_s - from_s)
    used = _by_role({role: seconds - before.get(role, 0.0) for role, seconds in after.items()})
    return {
        "cameras": cameras,
        "fps": fps,
        "total_fps": cameras * fps,
        "window_s": until_s - from_s,
        "frames": frames,
        "frames_asked": asked,
        "held": frames / asked,
        "cpu_ms_per_frame": {role: 1000 * seconds / max(1, frames) for role, seconds in used.items()},
        "cores_used": sum(used.values()) / (until_s - from_s),
        "memory_bytes": _by_role(memory),
        "latency_s": {name: quantile(late_s, q) for name, q in QUANTILES.items()},
        "frames_lost": found["frames_lost"],
        "frames_pending": report["frames_pending"],
        "frames_shed": report["frames_shed"],
        "status": status,
        "startup_s": report["startup_s"],
    }


QUANTILES: Final = {"p50": 0.5, "p99": 0.99}


def cells(short: bool, own: Sequence[int], total_fps: float) -> Iterator[tuple[str, int, float]]:
    """Yield the sweep, the cameras and the frames per second of each.

    If `own` is given, it holds the only numbers of cameras.
    """
    if own:
        yield from (("cameras", cameras, total_fps / cameras) for cameras in own)
        return
    for cameras in SHORT_CAMERAS if short else CAMERAS:
        yield "cameras", cameras, TOTAL_FPS / cameras
    for total in SHORT_FRAMES if short else FRAMES:
        yield "frames", FRAMES_CAMERAS, total / FRAMES_CAMERAS


def run(out: Path, wanted: Iterable[tuple[str, int, float]], warm_s: float, window_s: float, command: str) -> None:
    """Measure the missing `wanted` cells, one by one."""
    file = out / "rows.json"
    document: dict[str, Any] = {"cells": {}} | read_json(file)
    document["machine"] = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    document["command"] = command
    known: dict[str, Cell] = document["cells"]
    for sweep, cameras, fps in wanted:
        name = f"{sweep} {cameras} {fps:g} {window_s:g}"
        if name not in known:
            saturated = [cell for cell in known.values() if cell["sweep"] == sweep == "frames" and cell["held"] < HELD]
            if any(cell["total_fps"] < cameras * fps for cell in saturated):
                continue
            with tempfile.TemporaryDirectory(prefix="pointillist-cost-") as folder:
                known[name] = {"sweep": sweep, **measure(Path(folder), cameras, fps, warm_s, window_s)}
            write_json(file, document)
        print(name, json.dumps({key: known[name][key] for key in ("held", "latency_s", "frames_lost", "cores_used")}))


def compare(out: Path, checkout: Path, name: str, options: Sequence[object], command: str) -> None:
    """Let another checkout measure the same cells, and add its cells and the ratios to the rows."""
    file = out / "rows.json"
    document = json.loads(file.read_text())
    with tempfile.TemporaryDirectory(prefix="pointillist-cost-") as folder:
        # Cells of an earlier baseline in the same folder would not be measured again.
        cells = run_in_checkout(checkout, Path(__file__).name, "--out", folder, *options)["cells"]
    document["command"] = command
    document["baseline"] = cells
    document["over_baseline"] = {
        str(cell["cameras"]): {"baseline": name, "cpu": _cpu_ms(cell) / _cpu_ms(cells[key])}
        for key, cell in document["cells"].items()
        if key in cells and all(HELD <= each["held"] <= 2 - HELD for each in (cell, cells[key]))
    }
    write_json(file, document)


def _cpu_ms(cell: Cell) -> float:
    return float(sum(cell["cpu_ms_per_frame"].values()))


def main() -> None:
    """Measure, and write the pages."""
    arguments = command_line(
        __doc__,
        out=Path("build/cost"),
        json=Option(Path, "Also write the cells to this file."),
        short=False,
        cameras=Option(str, "Comma-separated numbers of cameras, instead of both sweeps."),
        total=Option(TOTAL_FPS, "Frames per second of all these cameras together."),
        only_pages=False,
        warm=Option(float, "Warm-up in seconds (default: 20, or 10 with --short)."),
        window=Option(float, "Measured seconds (default: 40, or 15 with --short)."),
        baseline=Option(Path, "With --cameras: another checkout, whose packages this Python can run."),
        baseline_name=Option("", "Its name in the tables, such as its commit."),
    )
    if arguments.baseline and not arguments.cameras:
        raise SystemExit("--baseline: expected --cameras as well, got none")
    arguments.out.mkdir(parents=True, exist_ok=True)
    warm_s = (10.0 if arguments.short else 20.0) if arguments.warm is None else arguments.warm
    window_s = (15.0 if arguments.short else 40.0) if arguments.window is None else arguments.window
    if not arguments.only_pages:
        own = [int(cameras) for cameras in arguments.cameras.split(",")] if arguments.cameras else []
        run(arguments.out, cells(arguments.short, own, arguments.total), warm_s, window_s, arguments.command)
        if arguments.baseline:
            options = (
                "--cameras",
                arguments.cameras,
                "--total",
                arguments.total,
                "--warm",
                warm_s,
                "--window",
                window_s,
            )
            compare(arguments.out, arguments.baseline, arguments.baseline_name, options, arguments.command)
    write_pages(arguments.out)
    if arguments.json:
        arguments.json.write_text((arguments.out / "rows.json").read_text())


if __name__ == "__main__":
    main()
