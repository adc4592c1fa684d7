"""The page of STRIP and the repair: figures from the experiment's CSV files and the measuring commands' JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.experiments.codefend import report, tables
from lab.results.markdown import markdown

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "codefend"

Row = tuple[str, str, str]


def rendered() -> str:
    """Return the experiment's figures with their targets, then those of the running system."""
    rows = [(*row, f"`{command}`") for name, rows_of, command in SOURCES for row in _rows(name, rows_of)]
    heads = ["what", "asked for", "measured", "command"]
    return "\n\n".join([tables.findings_table(report.read_findings(RESULTS)), markdown(heads, rows)])


def _rows(name: str, rows_of: Callable[[dict[str, Any]], list[Row]]) -> list[Row]:
    file = RESULTS / name
    return rows_of(json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {})


def _strip(document: dict[str, Any]) -> list[Row]:
    if not document:
        return [("STRIP on the CPU", "≥ 4, aim 10", "not measured")]
    gpu = document["gpu"]
    speed = gpu if isinstance(gpu, str) else f"{gpu['frames_per_s']:.0f} frames/s"
    return [
        (
            f"{document['inputs']} inputs checked, ResNet-20, CPU: loop of one batch an input ÷ the stage",
            "≥ 4, aim 10",
            f"{document['ratio']:.1f} ({document['mean_passes']:.1f} passes an input)",
        ),
        ("STRIP on a GPU, N = 100", "≥ 3,000 frames/s, aim 10,000", speed),
    ]


def _live(document: dict[str, Any]) -> list[Row]:
    what = "32 cameras at 2 fps, 20 % probes: a sticker on 4 is alerted within 10 s, no other camera in 5 minutes"
    runs = document.get("runs", [])
    found = f"{document['runs_passed']} of {len(runs)} runs; {_delays(runs)}" if runs else "not measured"
    rows = [(what, "9 of 10 runs, aim 10", found)]
    cure = document.get("cure")
    shown = "not measured"
    if cure:
        accuracy = cure["accuracy_with_sticker"]
        shown = (
            f"{cure['audit']['frames_lost']} lost of {cure['frames_recorded']}; repair {cure['repair_s']:.0f} s, first "
            f"verdict of the cured model {cure['publish_to_first_verdict_s']:.1f} s after `publish`; accuracy under "
            f"the sticker {accuracy['before']:.3f} → {accuracy['after']:.3f}"
        )
    return [*rows, ("alert → repair → swap, while the cameras send", "0 lost", shown)]


def _delays(runs: list[dict[str, Any]]) -> str:
    waits = [wait for each in runs for wait in each["seconds_to_alert"].values()]
    seen = sorted(wait for wait in waits if wait is not None)
    false = sum(sum(each["false_alerts"].values()) for each in runs)
    slowest = f", the slowest after {seen[-1]:.1f} s" if seen else ""
    lost = sum(each["audit"]["frames_lost"] for each in runs)
    return f"{len(seen)} of {len(waits)} stickers alerted{slowest}; {false} false alerts; {lost} frames lost"


SOURCES: tuple[tuple[str, Callable[[dict[str, Any]], list[Row]], str], ...] = (
    ("strip.json", _strip, "python -m benchmarks.speed.strip --json docs/results/codefend/strip.json"),
    (
        "live.json",
        _live,
        "python -m benchmarks.models.codefend_live --bundle bundles/scene-sticker --repair --clean "
        "runs/backdoor/scene-sticker/clean.npz --json docs/results/codefend/live.json",
    ),
)
