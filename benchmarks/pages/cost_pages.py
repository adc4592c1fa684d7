"""The page and the plots of `benchmarks.scale.cost`, made from its `rows.json` alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.results.markdown import markdown
from schemas.runtime.atomic_file import replacing, write_text

ON_THE_SERVER: Final = ("bridge", "processor-1", "recorder")
OURS: Final = ("fleet", *ON_THE_SERVER)
ROLES: Final = (*OURS, "mosquitto", "kafka", "up")

Cell = dict[str, Any]


def cells_of(document: dict[str, Any], sweep: str) -> list[Cell]:
    """Return the cells of one sweep by load. Of two cells for the same load, the longer measurement counts."""
    found = [cell for cell in document["cells"].values() if cell["sweep"] == sweep]
    longest = {(cell["cameras"], cell["total_fps"]): cell for cell in sorted(found, key=lambda each: each["window_s"])}
    return [longest[place] for place in sorted(longest)]


def total_cpu_ms(cell: Cell) -> float:
    """Return the CPU milliseconds per frame of all processes together."""
    return float(sum(cell["cpu_ms_per_frame"].values()))


def camera_bytes(cell: Cell, least: Cell, roles: Sequence[str]) -> float | None:
    """Return the memory that each additional camera costs the roles together.

    Return None for the cell with the fewest cameras.
    """
    more = cell["cameras"] - least["cameras"]
    if not more:
        return None
    grown = sum(cell["memory_bytes"].get(role, 0) - least["memory_bytes"].get(role, 0) for role in roles)
    return float(grown / more)


def _cpu_table(cells: Sequence[Cell]) -> str:
    heads = ["cameras", "frames/s", "held", "lost", "p50, s", "p99, s", "cores", *ROLES, "all", "÷ first"]
    lines = []
    for cell in cells:
        waits = ["–" if cell["latency_s"][q] is None else f"{cell['latency_s'][q]:.3f}" for q in ("p50", "p99")]
        by_role = [f"{cell['cpu_ms_per_frame'].get(role, 0.0):.2f}" for role in ROLES]
        lines.append([
            f"{cell['cameras']}", f"{cell['total_fps']:g}", f"{cell['held']:.3f}", f"{cell['frames_lost']}", *waits,
            f"{cell['cores_used']:.2f}", *by_role, f"{total_cpu_ms(cell):.2f}",
            f"{total_cpu_ms(cell) / total_cpu_ms(cells[0]):.2f}",
        ])  # fmt: skip
    return markdown(heads, lines)


def _memory_table(cells: Sequence[Cell]) -> str:
    groups = [*((role,) for role in OURS), ON_THE_SERVER, OURS]
    lines = []
    for cell in cells[1:]:
        sizes = [camera_bytes(cell, cells[0], roles) for roles in groups]
        lines.append([f"{cell['cameras']}", *("–" if size is None else f"{size / 1000:.1f}" for size in sizes)])
    return markdown(["cameras", *OURS, "on the server", "all four"], lines)


def page(document: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    machine = document["machine"]
    lines = [
        "# Cost against work",
        "",
        f"`{document['command']}`, {machine['cores']} cores that hold everything. CPU time in milliseconds for a",
        "recorded frame, by role; `held` is the share of the frames asked for that were recorded in the window.",
    ]
    cameras, frames = cells_of(document, "cameras"), cells_of(document, "frames")
    if cameras:
        lines += ["", "## More cameras, the same frames a second", "", _cpu_table(cameras)]
        lines += ["", "Memory that each camera beyond the first row's costs, in kB of each role's own:", ""]
        lines += [_memory_table(cameras), "", "![cost against cameras](cameras.png)"]
    if frames:
        lines += ["", "## More frames a second, the same cameras", "", _cpu_table(frames)]
        lines += ["", "![cost against frames a second](frames.png)"]
    return "\n".join(lines) + "\n"


def _plot(file: Path, cells: Sequence[Cell], across: str, label: str) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    cost, wait = figure.subplots(1, 2)
    work = [cell[across] for cell in cells]
    shown: list[tuple[Axes, str, list[float]]] = [
        *((cost, role, [cell["cpu_ms_per_frame"].get(role, 0.0) for cell in cells]) for role in ROLES),
        *((wait, name, [cell["latency_s"][name] or float("nan") for cell in cells]) for name in ("p50", "p99")),
    ]
    for axes, name, values in shown:
        axes.plot(work, values, marker="o", markersize=3, label=name)
    cost.set_ylabel("CPU ms a frame")
    wait.set_ylabel("seconds from capture to record")
    wait.set_yscale("log")
    for axes in (cost, wait):
        axes.set_xlabel(label)
        axes.set_xscale("log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    with replacing(file) as new:
        figure.savefig(new, format="png", dpi=110)


def write_pages(out: Path) -> None:
    """Write `README.md` and the plots next to `rows.json` in `out`."""
    document = json.loads((out / "rows.json").read_text())
    write_text(out / "README.md", page(document))
    for sweep, across, label in (("cameras", "cameras", "cameras"), ("frames", "total_fps", "frames/s asked for")):
        cells = cells_of(document, sweep)
        if cells:
            _plot(out / f"{sweep}.png", cells, across, label)
