"""README rows of many cameras, from the results of `benchmarks.scale.cost` and `benchmarks.scale.recorder`, if they
exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from benchmarks.pages.cost_pages import ON_THE_SERVER, camera_bytes, cells_of, total_cpu_ms

MANY: Final = 10_000

Row = tuple[str, str, str, str]


def rows(results: Path) -> list[Row]:
    """Return the rows for 10,000 cameras and for the recorder, with targets; `results` is `docs/results`."""
    return _cost(results / "cost" / "rows.json") + _recorder(results / "trunk" / "recorder.json")


def _cost(file: Path) -> list[Row]:
    if not file.is_file():
        return []
    document = json.loads(file.read_text())
    cells = cells_of(document, "cameras")
    if not cells or cells[-1]["cameras"] < MANY:
        return []
    least, most = cells[0], cells[-1]
    run = f"`{document['command']}`"
    latency = most["latency_s"]["p99"]
    server = camera_bytes(most, least, ON_THE_SERVER)
    fleet = camera_bytes(most, least, ("fleet",))
    assert server is not None
    assert fleet is not None
    return [
        (
            f"{most['cameras']} cameras × {most['fps']:g} fps: lost, p99 after the start, CPU a frame ÷ that of "
            f"{least['cameras']} cameras at the same total",
            "0, ≤ 1 s, ≤ 1.5 (aim .3 s, 1.1)",
            f"{most['frames_lost']}, {'–' if latency is None else f'{latency:.3f} s'}, "
            f"{total_cpu_ms(most) / total_cpu_ms(least):.2f}",
            run,
        ),
        (
            f"memory a camera at {most['cameras']}: bridge, processor and recorder together; fleet",
            "≤ 100 kB (aim 30) on the server",
            f"{server / 1000:.0f} kB; {fleet / 1000:.0f} kB",
            run,
        ),
    ]


def _recorder(file: Path) -> list[Row]:
    if not file.is_file():
        return []
    document = json.loads(file.read_text())
    run = f"`{document['command']} --json docs/results/trunk/recorder.json`"
    found: list[Row] = [(
        f"recorder: restart with {document['cameras']} cameras",
        "≤ 2 s",
        f"{document['restart']['restart_s']:.2f} s",
        run,
    )]  # fmt: skip
    if "holds" in document:
        held = document["holds"]
        found.append((
            f"recorder: verdicts/s that it holds, of {document['cameras']} cameras in turn",
            "≥ 30,000",
            f"{held['verdicts_per_s']:.0f} ({held['cpu_us_per_verdict']:.0f} µs CPU each)",
            run,
        ))  # fmt: skip
    return found
