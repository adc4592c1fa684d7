"""A breakdown of a frame's latency: `python -m benchmarks.speed.latency [--folder build/latency] [--rounds 3]`.

Each load runs as `pointillist up` with stamps (`schemas.runtime.trace`) on an empty state folder, `--rounds` times,
with the shipped scene bundle and 5 % of probes. The page shows the time between successive stamps, as median and 99th
percentile of the frames captured after the warm-up. It also shows the time from capture to record, which is the p50 and
p99 of the console, and from capture to commit. Each role's CPU time per frame follows.

With `--baseline CHECKOUT`, another checkout of the project runs in turns with this one, without stamps if it does not
support them. The page then shows ratios of the medians. Results in the folder's `latency.json` are not measured again
on the same machine with a baseline of the same name: both sides of a ratio run in turns. `latency.md` holds the tables.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.quantile import quantile
from benchmarks.harness.system import RunningSystem, undisturbed
from benchmarks.speed.pipeline import WARM_S, measure_window
from consumers.database.queries import open_records
from infra.audit.report import share
from infra.state_folder import Layout
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import read_json, write_json

Result = dict[str, Any]

LOADS: Final = ("8x2", "32x8")
"""Loads: number of cameras × frames per second of each camera."""
STRETCHES: Final = {
    "taken": "to the camera's loop",
    "sealed": "drop, pack, sign",
    "spooled": "spool",
    "published": "to MQTT's socket",
    "received": "mosquitto, to the bridge, tag",
    "sent": "bridge's linger",
    "stored": "Kafka takes the frame",
    "fetched": "processor's fetch, tag",
    "device": "wait for others and for the device",
    "classified": "device",
    "checked": "STRIP's queue and STRIP (probes)",
    "answered": "verdict, preview",
    "delivered": "Kafka takes the verdict",
    "gathered": "recorder's fetch",
    "recorded": "recorder's linger",
    "committed": "transaction",
}
"""The work between the previous stamp and this one, by stamp."""


def read_stamps(folder: Path) -> dict[str, dict[str, int]]:
    """Return the stamps of each frame in Unix nanoseconds. If a stamp occurs twice, the first counts."""
    frames: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for file in sorted(folder.glob("*.tsv")):
        for line in file.read_text().splitlines():
            at_ns, what, frame = line.split("\t")
            known = frames[frame].get(what)
            frames[frame][what] = int(at_ns) if known is None else min(known, int(at_ns))
    return frames


def stretches(frames: Iterable[Mapping[str, int]]) -> dict[str, list[float]]:
    """Return the milliseconds up to each stamp from the frame's previous one. Frames without a commit are left out.

    A verdict may be fetched before its writer receives Kafka's acknowledgement. Such a stretch is negative; the sum of
    a frame's stretches is still its latency.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    for stamps in frames:
        if "committed" not in stamps or "captured" not in stamps:
            continue
        before = stamps["captured"]
        for what in STRETCHES:
            if what in stamps:
                found[what].append((stamps[what] - before) / 1e6)
                before = stamps[what]
        found["whole way"].append((before - stamps["captured"]) / 1e6)
    return dict(found)


def run(cameras: int, fps: float, seconds: float, checkout: Path) -> Result:
    """Run a checkout once: latency, stretches and CPU time per frame over `seconds` after the warm-up."""
    with tempfile.TemporaryDirectory(prefix="pointillist-latency-") as folder:
        state, stamps = Path(folder) / "state", Path(folder) / "stamps"
        load = ("--cameras", cameras, "--fps", fps, "--seconds", seconds + 2 * WARM_S)
        traced = patch.dict(os.environ, {"POINTILLIST_TRACE": str(stamps)})
        with traced, RunningSystem(state, *load, "--no-prometheus", checkout=checkout) as system:
            window = measure_window(system, seconds)
            report = undisturbed(system.finish(), system.output())
        with open_records(Layout(state).database_url) as records:
            latency = records.latency_quantiles(window.begun_ms, window.ended_ms)
        frames = [
            each
            for each in read_stamps(stamps).values()
            if window.begun_ms <= each.get("captured", 0) // 10**6 < window.ended_ms
        ]
    handled = cameras * fps * window.seconds
    return {
        "p50_s": latency.p50,
        "p99_s": latency.p99,
        "frames": len(frames),
        "stretches_ms": {what: _spread(values) for what, values in stretches(frames).items()},
        "cpu_ms_per_frame": {role: 1000 * used / handled for role, used in window.cpu_s.items()},
        "frames_published": report["frames_published"],
        "frames_lost": report["frames_lost"],
        "frames_pending": report["frames_pending"],
        "whole_run_latency_s": report["latency_s"],
        "load_average": os.getloadavg()[0],
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "frames": len(values),
        "mean": float(np.mean(values)),
        "p50": quantile(values, 0.5) or 0.0,
        "p99": quantile(values, 0.99) or 0.0,
    }


def summary(runs: Sequence[Result]) -> Result:
    """Return the medians of the rounds of one side and load."""
    what = [each for each in (*STRETCHES, "whole way") if all(each in run["stretches_ms"] for run in runs)]
    roles = sorted(set.intersection(*(set(run["cpu_ms_per_frame"]) for run in runs)))
    cpu = {role: statistics.median(run["cpu_ms_per_frame"][role] for run in runs) for role in roles}
    return {
        "p50_s": statistics.median(run["p50_s"] for run in runs),
        "p99_s": statistics.median(run["p99_s"] for run in runs),
        "frames_lost": sum(run["frames_lost"] for run in runs),
        "stretches_ms": {
            each: {key: statistics.median(run["stretches_ms"][each][key] for run in runs) for key in ("p50", "p99")}
            for each in what
        },
        "cpu_ms_per_frame": cpu,
        "cpu_ms_per_frame_of_all": sum(cpu.values()),
    }


def over_baseline(this: Result, baseline: Result) -> dict[str, float]:
    """Return the figures of this checkout ÷ those of the other one."""
    keys = {"p50": "p50_s", "p99": "p99_s", "cpu": "cpu_ms_per_frame_of_all"}
    return {name: share(this[key], baseline[key]) or 0.0 for name, key in keys.items()}


def markdown(document: Result) -> str:
    """Return the tables of the results."""
    parts = [
        "# Where a frame's milliseconds go",
        f"Made by `{document['command']}` on {document['machine']}. Medians of {document['rounds']} rounds of "
        f"{document['seconds']:g} s each, milliseconds. The stretches of one frame add up; their medians need not.",
    ]
    for load, sides in document["summary"].items():
        ours = sides["this"]
        cameras, fps = parsed(load)
        parts += [
            f"## {cameras} cameras × {fps:g} frames/s",
            "| | p50 | p99 |\n| --- | ---: | ---: |\n" + "\n".join(_rows(ours)),
        ]
        cpu = ", ".join(f"{role} {value:.2f}" for role, value in ours["cpu_ms_per_frame"].items())
        parts.append(
            f"CPU time a frame: {ours['cpu_ms_per_frame_of_all']:.2f} ms ({cpu}). Lost: {ours['frames_lost']}."
        )
        if "over_baseline" in sides:
            ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in sides["over_baseline"].items())
            parts.append(f"÷ the other checkout ({document['baseline']}), in turns: {ratios}.")
    return "\n\n".join(parts) + "\n"


def _rows(side: Result) -> list[str]:
    found = side["stretches_ms"]
    rows = [
        f"| {words} | {found[what]['p50']:.1f} | {found[what]['p99']:.1f} |"
        for what, words in STRETCHES.items()
        if what in found
    ]
    whole = found["whole way"]
    rows.append(f"| **capture to record** | **{1000 * side['p50_s']:.0f}** | **{1000 * side['p99_s']:.0f}** |")
    rows.append(f"| capture to commit | {whole['p50']:.1f} | {whole['p99']:.1f} |")
    return rows


def parsed(load: str) -> tuple[int, float]:
    """Return cameras and frames per second of a load, such as 8x2."""
    cameras, _, fps = load.partition("x")
    return int(cameras), float(fps)


def _name(load: str, side: str, seconds: float, number: int) -> str:
    return f"{load}, {side}, {seconds:g} s, round {number}"


def _rounds(document: Result, load: str, side: str) -> list[Result]:
    numbers = range(1, document["rounds"] + 1)
    return [document["runs"][_name(load, side, document["seconds"], number)] for number in numbers]


def main() -> None:
    """Measure the missing loads, print and write the tables."""
    arguments = command_line(
        __doc__,
        folder=Path("build/latency"),
        rounds=3,
        seconds=40.0,
        load=Option(str, f"such as 8x2 (default: {' '.join(LOADS)})", several="+"),
        baseline=Option(Path, "another checkout, whose packages this Python can run"),
        baseline_name=Option("", "its name in the tables, such as its commit (default: the name of its folder)"),
    )
    file = arguments.folder / "latency.json"
    document = {"runs": {}} | read_json(file)
    baseline = arguments.baseline_name or (arguments.baseline.resolve().name if arguments.baseline else "")
    made = {"baseline": baseline, "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}"}
    if any(document.get(key) != value for key, value in made.items()):
        document["runs"] = {}
    sides = {"this": Path.cwd()} | ({"baseline": arguments.baseline.resolve()} if arguments.baseline else {})
    loads = arguments.load or list(LOADS)
    document |= made | {"command": arguments.command, "rounds": arguments.rounds, "seconds": arguments.seconds}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.rounds):
        for load in loads:
            for side, checkout in sides.items():
                name = _name(load, side, arguments.seconds, number + 1)
                if name in document["runs"]:
                    continue
                document["runs"][name] = run(*parsed(load), arguments.seconds, checkout)
                write_json(file, document)
                print(name, document["runs"][name]["p50_s"], document["runs"][name]["p99_s"], flush=True)
    document["summary"] = {load: {side: summary(_rounds(document, load, side)) for side in sides} for load in loads}
    if "baseline" in sides:
        for found in document["summary"].values():
            found["over_baseline"] = over_baseline(found["this"], found["baseline"])
            found["other"] = baseline
    write_json(file, document)
    write_text(arguments.folder / "latency.md", markdown(document))
    print(markdown(document))


if __name__ == "__main__":
    main()
