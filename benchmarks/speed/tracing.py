"""The CPU time that tracing costs: `python -m benchmarks.speed.tracing --json docs/results/tracing/tracing.json`.

`pointillist up` runs with spans of 1 % of its frames, exported to a collector in this process, and without, in turns.
`over_untraced` is the CPU time of a frame, of all roles and brokers together, with spans ÷ without: the median of the
ratios of the rounds. The order changes from round to round. The collector's own time does not count.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.collector import Collector
from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import machine, report
from benchmarks.harness.system import RunningSystem, undisturbed
from benchmarks.speed.latency import parsed
from benchmarks.speed.pipeline import WARM_S, measure_window

Result = dict[str, Any]
SIDES: Final = ("untraced", "traced")


def run(cameras: int, fps: float, seconds: float, share: float | None) -> Result:
    """Run a system once: CPU seconds of each role for a recorded frame, over `seconds` after the warm-up.

    `share` of the frames is traced; None traces none.
    """
    with tempfile.TemporaryDirectory(prefix="pointillist-tracing-") as folder, Collector() as collector:
        state = Path(folder) / "state"
        load = ("--cameras", cameras, "--fps", fps, "--seconds", seconds + 3 * WARM_S, "--no-prometheus")
        traced = () if share is None else ("--tracing", collector.url, "--tracing-share", share)
        with RunningSystem(state, *load, *traced) as system:
            window = measure_window(system, seconds)
            found = undisturbed(system.finish(), system.output())
        whole = sum(
            {"camera", "bridge", "processor", "recorder"} <= {span.name for span in spans}
            for spans in collector.traces().values()
        )
    return {
        "frames": window.frames,
        "cpu_ms_per_frame": {role: 1000 * used / window.frames for role, used in window.cpu_s.items()},
        "frames_published": found["frames_published"],
        "frames_lost": found["frames_lost"],
        "traces": whole,
    }


def of_all(result: Result) -> float:
    """Return the CPU milliseconds of a frame in all roles."""
    cpu: Mapping[str, float] = result["cpu_ms_per_frame"]
    return sum(cpu.values())


def summary(rounds: list[dict[str, Result]]) -> Result:
    """Return the ratios of the rounds, and the medians of each side."""
    ratios = [of_all(each["traced"]) / of_all(each["untraced"]) for each in rounds]
    return {
        "over_untraced": statistics.median(ratios),
        "ratios": ratios,
        "cpu_ms_per_frame": {side: statistics.median(of_all(each[side]) for each in rounds) for side in SIDES},
        "traces": sum(each["traced"]["traces"] for each in rounds),
        "frames_published": sum(each[side]["frames_published"] for each in rounds for side in SIDES),
        "frames_lost": sum(each[side]["frames_lost"] for each in rounds for side in SIDES),
    }


def main() -> None:
    """Measure both sides in turns, print, and write the JSON."""
    arguments = command_line(
        __doc__,
        json=Path,
        load=Option("32x8", "cameras x frames per second"),
        share=0.01,
        seconds=40.0,
        rounds=5,
    )
    rounds: list[dict[str, Result]] = []
    for number in range(arguments.rounds):
        found = {}
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            share = arguments.share if side == "traced" else None
            found[side] = run(*parsed(arguments.load), arguments.seconds, share)
            print(f"round {number + 1}, {side}: {of_all(found[side]):.3f} ms a frame", flush=True)
        rounds.append(found)
    cameras, fps = parsed(arguments.load)
    document = {
        "command": arguments.command,
        "machine": machine("opentelemetry-sdk"),
        "cameras": cameras,
        "fps": fps,
        "share": arguments.share,
        "result": summary(rounds),
        "rounds": rounds,
    }
    report(document, arguments.json)


if __name__ == "__main__":
    main()
