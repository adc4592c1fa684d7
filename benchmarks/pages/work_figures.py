"""The README's rows of large frames, many cameras and many nodes, from their commands' results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.pages.cost_pages import ON_THE_SERVER, camera_bytes, cells_of, total_cpu_ms

Row = tuple[str, str, str, str]

ASKED_OF_NETWORKS = {
    "mobilenet_v3_small": ("MobileNetV3-small", "≤ 1.6 (aim 1.3)"),
    "resnet18": ("ResNet-18", "≤ 1.2 (aim 1.1)"),
}
FAULTS = {
    "kill": "kill -9 of a node",
    "hang": "a node hangs",
    "disk": "a node loses its disk",
    "rolling": "rolling restart",
}


def rows(results: Path) -> list[Row]:
    """Return the rows of all measurements in `docs/results`."""
    return [
        *_cost(json.loads((results / "cost" / "rows.json").read_text())),
        *_networks(json.loads((results / "trunk" / "own_networks.json").read_text())),
        _large(json.loads((results / "trunk" / "large.json").read_text())["result"]),
        *_nodes(json.loads((results / "trunk" / "nodes.json").read_text())["result"]),
    ]


def _cost(document: dict[str, Any]) -> list[Row]:
    cells = cells_of(document, "cameras")
    least, most = cells[0], cells[-1]
    memory = camera_bytes(most, least, ON_THE_SERVER) or 0.0
    what = f"{most['cameras']:,} cameras, {most['total_fps']:g} frames/s of all"
    run = f"`{document['command']}`"
    return [
        (
            f"{what}: lost; p99; CPU a frame ÷ that of {least['cameras']} cameras",
            "0; ≤ 1 s; ≤ 1.5 (aim .3 s, 1.1)",
            f"{most['frames_lost']}; {most['latency_s']['p99']:.2f} s; {total_cpu_ms(most) / total_cpu_ms(least):.2f}",
            run,
        ),
        (
            f"{what}: memory of bridge, processor and recorder a camera",
            "≤ 100 kB (aim 30)",
            f"{memory / 1000:.0f} kB",
            run,
        ),
    ]


def _networks(document: dict[str, Any]) -> list[Row]:
    found = []
    for network, (name, asked) in ASKED_OF_NETWORKS.items():
        measured = document["networks"][network]
        found.append(
            (
                f"four cameras of 640×480 × 5 fps before {name} at 224×224: processor's CPU ÷ the bare network's",
                asked,
                f"{measured['ratio']:.2f} ({1000 * measured['processor_cpu_s']:.1f} ms a frame)",
                f"`{document['command']}`",
            )
        )
    return found


def _large(found: dict[str, Any]) -> Row:
    return (
        "one camera of 1920×1080 × 15 fps for 60 s beside 8 scene cameras, two cores hold everything",
        "0 skipped, 0 lost, p99 ≤ .5 s",
        f"{found['frames_skipped']} skipped, {found['frames_shed']} shed, {found['frames_lost']} lost; "
        f"p99 {found['latency_s_large']['p99']:.2f} s",
        "`python -m benchmarks.reliability.drills large --json docs/results/trunk/large.json`",
    )


def _nodes(found: dict[str, Any]) -> list[Row]:
    return [
        (
            f"three Kafka nodes under load, {FAULTS[fault]}",
            "0 lost, longest gap in verdicts ≤ 10 s (aim 5 s)",
            f"{run['frames_lost']} lost of {run['frames_published']}, longest gap {run['longest_gap_s']:.1f} s",
            f"`python -m benchmarks.reliability.drills nodes --fault {fault} --json docs/results/trunk/nodes.json`",
        )
        for fault, run in found.items()
    ]
