"""The page of the defence's effect and cost: figures from the experiment's CSV files and the measurements' JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.experiments.harness.store import Store
from lab.experiments.super_iot import report, tables
from lab.experiments.super_iot.rows import QualityRow
from lab.experiments.super_iot.verdict import quality_findings
from lab.results.markdown import markdown

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "super-iot"

Row = tuple[str, str, str, str]


def rendered() -> str:
    """Return the first judge's figures with their targets, the verdicts, and the costs."""
    store = Store(RESULTS)
    judges, quality = report.read_results(store), store.records("psnr", QualityRow)
    parts = []
    if judges:
        parts = [
            tables.requirements(judges[0].findings + quality_findings(quality)),
            "\n".join(f"- {line}" for line in report.verdict_lines(judges, quality)),
        ]
    costs = [row for name, rows_of in SOURCES.items() for row in _rows(name, rows_of)]
    return "\n\n".join([*parts, markdown(["cost", "asked for", "measured", "command"], costs)])


def _rows(name: str, rows_of: Callable[[dict[str, Any]], list[tuple[str, str, str]]]) -> list[Row]:
    file, command = RESULTS / f"{name}.json", f"`{COMMANDS[name]} --json docs/results/super-iot/{name}.json`"
    if not file.is_file():
        return [(name, "", "not measured", command)]
    return [(*row, command) for row in rows_of(json.loads(file.read_text(encoding="utf-8")))]


def _stages(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        ("default, in ResNet-20 forwards, batch 256, CPU", "≤ 1, aim .5", f"{document['default_over_classifier']:.2f}"),
        ("Algorithm 1, in the same", "≤ 6", f"{document['paper_over_classifier']:.2f}"),
    ]


def _edge(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        *_edge_times(document),
        ("`lossless` bytes ÷ `raw` bytes, videos", "≤ .25", f"{document['lossless_over_raw_bytes']:.3f}"),
    ]


def _edge_times(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    size = "×".join(str(side) for side in document["size"])
    return [
        (f"edge, {size}: drop + `raw`, ÷ JPEG at quality 90", "≤ 1.2, aim 1", f"{document['raw_over_jpeg']:.2f}"),
        (f"edge, {size}: drop + `lossless`, ÷ the same", "≤ 10", f"{document['lossless_over_jpeg']:.2f}"),
        (f"edge, {size}: a whole `raw` message, tag with it, ÷ the same", "–", f"{document['message_over_jpeg']:.2f}"),
    ]


def _large(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    gain = document["psnr_db"] - document["biharmonic_psnr_db"]
    return [
        ("large photographs, dB above biharmonic, r = .25", "≥ 1.3, aim 2.5", f"{gain:.2f}"),
        ("its time ÷ biharmonic's", "≤ .5", f"{document['seconds'] / document['biharmonic_seconds']:.2f}"),
    ]


SOURCES: dict[str, Callable[[dict[str, Any]], list[tuple[str, str, str]]]] = {
    "stages": _stages,
    "edge": _edge,
    "edge-1080p": _edge_times,
    "photographs": _large,
}
COMMANDS = {
    "stages": "python -m benchmarks.speed.stages",
    "edge": "python -m benchmarks.speed.edge",
    "edge-1080p": "python -m benchmarks.speed.edge --size 1920 1080 --timed-frames 2",
    "photographs": "pointillist lab psnr --images runs/photographs --drop-ratio .25",
}
