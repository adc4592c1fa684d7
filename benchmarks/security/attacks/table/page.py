"""The table as a page."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

_RATIO_MUST = 2.0
_QUIET_S = 2.0
"""Highest p99 before an attack for a valid comparison. Above it, other work on the machine causes the delay."""


def ratio(cell: dict[str, Any]) -> float | None:
    """Return p99 of the good frames during the attack ÷ before it."""
    before, during = cell["p99_before_s"], cell["p99_during_s"]
    return during / before if before and during else None


def verdict(cell: dict[str, Any]) -> str:
    """Return `refused` or `bounded`, or the failures."""
    wrong = [f"**{name.removeprefix('reached: ')}: {count}**" for name, count in cell["reached"].items()]
    wrong += [f"**{cell['lost']} lost**"] * bool(cell["lost"])
    wrong += [f"**not seen by {name.strip()}**" for name in cell["unseen"]]
    slow = ratio(cell)
    if slow is None or slow > _RATIO_MUST:
        wrong.append("**others wait**")
    return ", ".join(wrong) or str(cell["answer"])


def markdown(cells: Sequence[dict[str, Any]]) -> str:
    """Return the table of all cells, strangers first."""
    lines = [
        "# 12 attacks of a stranger, 8 of an enrolled camera",
        "",
        "`python -m benchmarks.security.attacks.table` printed this: `pointillist up` as it runs by default,",
        "but with 8 cameras, 5 fps and no regular probes.",
        "Each attack in rounds, each after as long a quiet; *p99*: of the good cameras' frames, capture to record,",
        "during ÷ before. The control, in which nobody does anything, shows what of that the machine's other work is.",
        "A stranger tries without TLS, without a certificate, with that of another fleet, and with one that has ended.",
        "",
        "| who | attack | what became of it | seen by | p99 before, s | during, s | ÷ |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in cells:
        seen = ", ".join(f"{name} {count:.0f}" for name, count in sorted(cell["seen"].items()))
        slow = ratio(cell)
        took = [f"{cell[name]:.3f}" if cell[name] else "–" for name in ("p99_before_s", "p99_during_s")]
        shown = f"{slow:.2f}" if slow is not None else "–"
        done = f"*{cell['attack']}*: {cell['what']}"
        lines.append(f"| {cell['who']} | {done} | {verdict(cell)} | {seen} | {' | '.join(took)} | {shown} |")
    loads = [cell["load"] for cell in cells]
    lines += [
        "",
        "*mqtt …* is `pointillist_mqtt_refusals_total{kind}`; *over quota …*",
        "`pointillist_bridge_over_quota_messages_total{camera_id}`; *dead letter …*",
        "`pointillist_dead_letters_total{reason}`; *processor …* `pointillist_refused_frames_total{reason}`;",
        "*recorder duplicate* `pointillist_recorded_frames_total{outcome}`;",
        "*captured in the future* `pointillist_negative_latency_total`;",
        "*kafka's log* lines of Kafka's `server.log`. Mosquitto logs neither a will that it refuses nor a",
        "message that it does not deliver for lack of a right.",
        "",
        f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, with other processes running: "
        f"load {min(loads):.1f} to {max(loads):.1f}.",
        "",
    ]
    slowest = max(cell["p99_before_s"] or 0.0 for cell in cells)
    if slowest > _QUIET_S:
        lines += [
            f"**Before some attacks one frame in a hundred took up to {slowest:.0f} s: other work left this system",
            "too little of the machine. What was refused, bounded and counted is valid; the columns of p99 are not,",
            "and are to be measured again where it is quiet.**",
            "",
        ]
    return "\n".join(lines)
