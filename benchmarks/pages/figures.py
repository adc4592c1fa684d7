"""The tables of figures in the documentation, made from measurements: `python -m benchmarks.pages.figures`.

The measurements are in `docs/results`. This command writes their numbers, and nothing else, between the marks.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.pages import backdoors, defence, front, robustness, scale_figures, work_figures
from benchmarks.speed.latency import parsed

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results" / "trunk"
Row = tuple[str, str, str, str]
MIB = 2**20


def rendered() -> str:
    """Return the table of all finished measurements."""
    rows: list[Row] = []
    for name, rows_of in SOURCES.items():
        file = RESULTS / f"{name}.json"
        if file.is_file():
            rows += rows_of(json.loads(file.read_text()))
        else:
            rows.append((name, "", "not measured", f"`{command(name)}`"))
    rows += _at_scale() + _latency(RESULTS.parent / "latency" / "latency.json")
    rows += scale_figures.rows(RESULTS.parent) + work_figures.rows(RESULTS.parent)
    lines = ["| what | asked for | measured | command |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def command(name: str) -> str:
    """Return the command that writes the measurement `name`."""
    place = f"--json docs/results/trunk/{name}.json"
    if name in ("pipeline", "bridge", "edge", "stages"):
        return f"python -m benchmarks.{name} {place}"
    if name == "attacks":
        return f"python -m benchmarks.security.attacks {place}"
    if name == "fresh":
        return f"python -m benchmarks.reliability.fresh --test {place}"
    return f"python -m benchmarks.reliability.drills {name} {place}"


def _fresh(document: dict[str, Any]) -> list[Row]:
    found = document["result"]
    return [(
        "fresh clone, empty caches: `make up` to the first recorded frame; `make test`",
        "both work",
        f"{found['first_record_s'] / 60:.1f} minutes; "
        f"{found['make_test_s'] / 60:.1f} minutes: {found['make_test_said']}",
        f"`{command('fresh')}`",
    )]  # fmt: skip


def _fleet(document: dict[str, Any]) -> list[Row]:
    rows = []
    for name, bound in (("strip_rate_0", 0.765), ("strip_rate_0.05", 0.78)):
        found = document["result"][name]
        probes = "without probes" if name == "strip_rate_0" else "5 % probes"
        rows.append((
            f"32 cameras × 2 fps × 60 s, r = .25, {probes}",
            f"0 lost, accuracy ≥ .95, p99 ≤ .5 s, sent ≤ {bound} × raw, ≤ 44 bytes overhead",
            f"{found['frames_lost']} lost of {found['frames_published']}, accuracy {found['accuracy']:.3f}, "
            f"p99 {found['latency_s']['p99']:.3f} s, sent {found['sent_over_raw']:.4f} × raw, "
            f"{found['wire_overhead_bytes_per_frame']:.1f} bytes overhead",
            f"`{command('fleet')}`",
        ))  # fmt: skip
    return rows


def _outcome(found: dict[str, Any]) -> str:
    return (
        f"{found['frames_lost']} lost of {found['frames_published']}, {found['frames_shed']} shed, "
        f"{found['duplicates_removed']} duplicates removed"
    )


def _kills(document: dict[str, Any]) -> list[Row]:
    found = document["result"]
    slowest = max(found["restarted_after_s"].items(), key=lambda item: item[1])
    return [(
        "kill -9 of bridge, processor, recorder, Kafka, mosquitto, fleet, in turn, under load",
        "0 lost, each restarted within seconds",
        f"{_outcome(found)}; restarted within {slowest[1]:.1f} s ({slowest[0]} the slowest)",
        f"`{command('kills')}`",
    )]  # fmt: skip


def _outage(document: dict[str, Any]) -> list[Row]:
    rows = []
    for name, found in document["result"].items():
        small = name.startswith("spool")
        rows.append((
            f"{name.replace('_', ' ')}, {found['hang_s']:.0f} s",
            "drops oldest, counts each, 0 lost" if small else "spools fill, then drain; 0 lost",
            f"{_outcome(found)}; {found['spooled_bytes_at_the_end'] / MIB:.1f} MiB spooled, "
            f"mosquitto grew by {found['mosquitto_grew_bytes'] / MIB:.1f} MiB",
            f"`{command('outage')}`",
        ))  # fmt: skip
    return rows


def _hostile(document: dict[str, Any]) -> list[Row]:
    found = document["result"]
    grew = ", ".join(f"{role} {size / MIB:.0f} MiB" for role, size in found["grew_bytes"].items())
    replays = found.get("replays_removed", found["duplicates_removed"])
    return [(
        f"{found['hostile']} random, mutated and replayed payloads beside good traffic",
        "all refused by the broker, dead-lettered or duplicates; good traffic unharmed, memory bounded",
        f"{found['frames_foreign']} foreign, {replays} duplicates, "
        f"{found['hostile'] - found['frames_foreign'] - replays} refused by the broker, which threw their senders out "
        f"{found['thrown_out']} times; good traffic: "
        f"{found['frames_lost']} lost of {found['frames_published']}, p99 {found['latency_s']['p99']:.2f} s; "
        f"memory grew: {grew}",
        f"`{command('hostile')}`",
    )]  # fmt: skip


def _footage(document: dict[str, Any]) -> list[Row]:
    return [
        (
            f"video {name}, whole, in its own size",
            "every frame recorded once",
            f"{found['frames_recorded']} of {found['frames_published']} recorded, "
            f"{found['duplicates_removed']} duplicates; {found['bytes_per_frame'] / 1000:.0f} kB and "
            f"{sum(found['cpu_ms_per_frame'].values()):.0f} ms CPU a frame, all processes",
            f"`{command('footage')}`",
        )
        for name, found in document["result"].items()
    ]


def _scale(document: dict[str, Any]) -> list[Row]:
    found = document["result"]
    return [(
        "two processors, two bridges, one of each killed, a processor added, under load",
        "0 lost; alerts neither doubled nor forgotten",
        f"{_outcome(found)}; {found['strip_checked']} probes checked, {found['strip_shed']} shed; "
        f"{found['alerts']} alerts, {found['alerts_expected']} expected from the recorded probes",
        f"`{command('scale')}`",
    )]  # fmt: skip


def _replay(document: dict[str, Any]) -> list[Row]:
    found = document["result"]
    twice = found["recorded_twice"] + found["judged_twice"]
    return [(
        "dead letters replayed after a wrong bundle, from the console",
        "all recorded, none twice",
        f"{sum(found['dead_letters'].values())} dead letters, {found['frames_dead_lettered']} of them left; "
        f"{found['frames_recorded']} of {found['frames_published']} recorded, {twice} twice, "
        f"{found['frames_lost']} lost",
        f"`{command('replay')}`",
    )]  # fmt: skip


def _camera(document: dict[str, Any]) -> list[Row]:
    found = document["result"]
    speeds = found["frames_per_second_of_all"]
    return [(
        "one camera of 768×432 as fast as it goes, r = .25, two cores hold everything",
        "≥ 60 frames/s (aim 120), 0 lost",
        f"{found['frames_per_second']:.1f} frames/s, {found['frames_lost']} lost of {found['frames_published']}; "
        f"{len(speeds)} runs, {min(speeds):.1f} to {max(speeds):.1f}",
        f"`{command('camera')}`",
    )]  # fmt: skip


def _attacks(document: dict[str, Any]) -> list[Row]:
    rows = []
    for name, found in document["result"].items():
        before, during, after = found["p99_before_s"], found["p99_during_s"], found["seen"].get("p99_after_s")
        beside = "" if before is None or during is None else f"; good traffic's p99 {before:.2f} → {during:.2f} s"
        if beside and after is not None:
            beside += f", {after:.2f} s afterwards"
        bounds = "fails, 0 lost" + (f", p99 {'afterwards ' if after is not None else ''}≤ 2 ×" if beside else "")
        if "database_growth_mib" in found["seen"]:
            bounds += ", database ≤ 20 MiB, audit ≤ 2 ×, `up` ends in ≤ 15 s"
            beside += _costs(found["seen"])
        rows.append((
            f"attack `{name}`: {found['what'].rstrip('.')}",
            bounds,
            f"{'succeeds' if found['succeeded'] else 'fails'}, {found['lost']} lost{beside}",
            f"`python -m benchmarks.security.attacks {name} --json docs/results/trunk/attacks.json`",
        ))  # fmt: skip
    return rows


def _costs(seen: dict[str, Any]) -> str:
    """Return the other costs of an attack. A dash stands for a command that did not end in time."""
    before, after, end = (
        "–" if seen[name] is None else f"{seen[name]:.1f}"
        for name in ("audit_before_s", "audit_after_s", "seconds_from_ctrl_c_to_the_end_of_up")
    )
    grown = f"database + {seen['database_growth_mib']:.1f} MiB"
    return f"; {grown}; audit {before} → {after} s; `up` ended {end} s after Ctrl-C"


def _at_scale() -> list[Row]:
    file = RESULTS.parent / "scale" / "accuracy.csv"
    run = "`python -m lab.restoration.at_scale --out docs/results/scale`"
    with file.open(newline="") as stream:
        cells = list(csv.DictReader(stream))
    rows = []
    for what, bound, some in (
        ("clean", ".995", [cell for cell in cells if not cell["attack"]]),
        ("under a blind PGD of L∞ .03", ".98", [cell for cell in cells if cell["attack"]]),
    ):
        chain, whole = (sum(float(cell[way]) * int(cell["frames"]) for cell in some) for way in ("chain", "whole"))
        least = min(some, key=lambda cell: float(cell["ratio"]))
        rows.append((
            f"scenes of 64 to 1,080 lines, r = .25 to .75, {what}: right at the network's scale ÷ rebuilt whole",
            f"≥ {bound}",
            f"{chain / whole:.3f}; lowest of {len(some)} cells {float(least['ratio']):.3f} "
            f"[{float(least['ratio_low']):.3f}, {float(least['ratio_high']):.3f}]",
            run,
        ))  # fmt: skip
    return rows


def _pipeline(document: dict[str, Any]) -> list[Row]:
    middle = document["median"]
    before = (
        [(
            f"pipeline ÷ itself at {document['beside']}, frames a second, in turns",
            "≥ 2 (aim 3)",
            f"{document['over_beside']:.2f}",
            f"`{command('pipeline')} --beside CHECKOUT`",
        )]
        if "over_beside" in document
        else []
    )  # fmt: skip
    return [
        *before,
        (
            "pipeline ÷ bare stages, frames a second",
            "≥ .70 (aim .85)",
            f"{document['ratio']:.2f} "
            f"({middle['pipeline_frames_per_second']:.0f} ÷ {middle['bare_frames_per_second']:.0f})",
            f"`{command('pipeline')}`",
        ),
        (
            "what the pipeline adds, in bare paho receives",
            "≤ 12, aim 6",
            f"{document['overhead_receives']:.1f} (a receive: {1e6 * middle['receive_cpu_s']:.0f} µs)",
            f"`{command('pipeline')}`",
        ),
    ]


def _bridge(document: dict[str, Any]) -> list[Row]:
    return [(
        "bridge ÷ quix-streams' MQTTSource: CPU a message, messages/s",
        "≤ .37 (aim .25), ≥ 1",
        f"{document['cpu_ratio']:.2f}, {document['rate_ratio']:.2f}",
        f"`{command('bridge')}`",
    )]  # fmt: skip


def _latency(file: Path) -> list[Row]:
    """Return a row for each measured load."""
    if not file.is_file():
        return []
    document = json.loads(file.read_text())
    asked = {"8x2": "≤ .04 s, ≤ .10 s (aim .02, .05)", "32x8": "≤ .06 s, ≤ .20 s (aim .03, .10)"}
    rows = []
    for load, sides in document["summary"].items():
        (cameras, fps), found = parsed(load), sides["this"]
        rows.append((
            f"{cameras} cameras × {fps:g} fps: capture to record, p50 and p99",
            f"{asked[load]}, 0 lost" if load in asked else "",
            f"{found['p50_s']:.3f} s, {found['p99_s']:.3f} s, {found['frames_lost']} lost",
            f"`{document['command']}`",
        ))  # fmt: skip
    return rows


SOURCES: dict[str, Callable[[dict[str, Any]], list[Row]]] = {
    "fresh": _fresh,
    "fleet": _fleet,
    "pipeline": _pipeline,
    "bridge": _bridge,
    "kills": _kills,
    "outage": _outage,
    "hostile": _hostile,
    "footage": _footage,
    "scale": _scale,
    "replay": _replay,
    "camera": _camera,
    "attacks": _attacks,
}


@dataclass(frozen=True)
class Block:
    """The output of `make`, between two marks on a page."""

    name: str
    page: Path
    make: Callable[[], str]

    def put(self) -> str:
        """Return the page's text with the current block. Raises ValueError if the marks are missing."""
        begin, end = f"<!-- {self.name}: python -m benchmarks.pages.figures -->", f"<!-- end of {self.name} -->"
        before, found, rest = self.page.read_text().partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{self.page}: expected the marks {begin} and {end}, got at most one. Add them.")
        return f"{before}{begin}\n{self.make()}\n{end}{after}"


PAGES = tuple(
    Block(name, RESULTS.parent / f"{name}.md", make)
    for name, make in (
        ("system", rendered),
        ("defence", defence.rendered),
        ("backdoors", backdoors.rendered),
        ("robustness", robustness.rendered),
    )
)
FRONT = Block("figures", ROOT / "README.md", lambda: front.rendered({block.name: block.make() for block in PAGES}))


def main() -> None:
    """Write the tables into their pages."""
    for block in (*PAGES, FRONT):
        block.page.write_text(block.put())


if __name__ == "__main__":
    main()
