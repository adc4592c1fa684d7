"""The resources that a fleet needs, on paper: `python -m benchmarks.pages.capacity [--out docs/capacity.md]`.

The page is arithmetic on results of other commands in `docs/results`; nothing is run. A role's capacity is the frames
per second of one core, from the measured CPU time per frame, at `USE` of the core. A fleet's needs are its frames per
second ÷ that capacity. The page marks figures that have not been measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.harness.command_line import command_line
from benchmarks.pages.cost_pages import ON_THE_SERVER, camera_bytes, cells_of
from benchmarks.pages.figures import rows
from lab.results.markdown import markdown
from processors.decoding.decoders import DecodingSettings
from processors.decoding.lane import DECODER_PIXELS
from schemas.runtime.atomic_file import replacing

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "docs" / "results"
PAGE: Final = ROOT / "docs" / "capacity.md"
USE: Final = 0.6
"""Share of a core that is used. The rest covers peaks, a second instance that has died, and short queues."""
ROLES: Final = ("mosquitto", "bridge", "kafka", "processor-1", "recorder")
DAY_S: Final = 86_400
SYSTEMS: Final = {
    "scene": "8 simulated cameras",
    "general": "`--cameras 0`, the general network, one camera attached",
}
"""The measured systems of `benchmarks.scale.footprint`, and their names on the page."""
KEPT_FRACTION: Final = 0.75
"""Share of the pixels that is kept at the default drop ratio."""
OVERHEAD_BYTES: Final = 44
"""Most bytes of a message besides the pixels."""
REPLICAS: Final = 3


class Kind(NamedTuple):
    """Measurements of frames of one size with one network."""

    name: str
    frame_bytes: int
    cpu_ms: dict[str, float]
    """CPU milliseconds per frame, by role."""
    command: str


class Fleet(NamedTuple):
    """A fleet to be sized."""

    cameras: int
    frames_per_s: float
    size: str
    """Size of the frames, with which the name of their kind begins. Of several kinds, the last one counts."""


FLEETS: Final = tuple(
    Fleet(cameras, rate, size)
    for cameras in (1_000, 100_000, 1_000_000)
    for rate, size in ((1.0, "32×32"), (0.1, "32×32"), (0.2, "640×480"))
)
VIDEO: Final = "video/own_networks.json"
"""The measurement of 640×480 under `video`; without it, the page has no such row."""


def read(name: str) -> Any:
    """Return a committed result."""
    return json.loads((RESULTS / name).read_text())


def kinds() -> list[Kind]:
    """Return the measurements for three frame sizes, the larger ones with both profiles."""
    cost = read("cost/rows.json")
    busy = cells_of(cost, "frames")[-1]
    middle = [_middle("video", VIDEO)] if (RESULTS / VIDEO).is_file() else []
    return [
        Kind("32×32, `raw`, the scene network", _bytes(32, 32), busy["cpu_ms_per_frame"], cost["command"]),
        _middle("raw", "trunk/own_networks.json", _bytes(640, 480)),
        *middle,
        _large("raw", "trunk/large.json", "", _bytes(1920, 1080)),
        _large("video", "video/large-6.json", " --profile video --cameras 6 --fps 5"),
    ]


def _middle(profile: str, file: str, frame_bytes: int | None = None) -> Kind:
    networks = read(file)
    live = networks["networks"]["mobilenet_v3_small"]["live"]
    return Kind(
        f"640×480, `{profile}`, MobileNetV3-small at 224×224",
        frame_bytes or round(live["bytes_per_frame"]),
        {role: 1000 * seconds for role, seconds in live["cpu_s_per_frame_by_role"].items()},
        networks["command"],
    )


def _large(profile: str, file: str, options: str, frame_bytes: int | None = None) -> Kind:
    """Return the measurement of the drill `large`. Its small cameras count in CPU times but not in bytes."""
    large = read(file)["result"]
    frames, others = large["frames_recorded_large"], large["frames_recorded_others"]
    return Kind(
        f"1920×1080, `{profile}`, the scene network",
        frame_bytes or round((large["bytes_sent"] - others * _bytes(32, 32)) / frames),
        {role: 1000 * seconds / frames for role, seconds in large["cpu_s_by_role"].items()},
        f"python -m benchmarks.reliability.drills large{options} --json docs/results/{file}",
    )


def _bytes(width: int, height: int) -> int:
    """Return the bytes of a message under `raw`."""
    return round(3 * width * height * KEPT_FRACTION) + OVERHEAD_BYTES


def carried(kind: Kind, role: str) -> float:
    """Return the frames per second that one core of a role carries at `USE`."""
    return 1000 * USE / kind.cpu_ms[role]


def cores(fleet: Fleet, kind: Kind, role: str) -> int:
    """Return the whole cores of a role that the fleet needs."""
    return math.ceil(fleet.cameras * fleet.frames_per_s / carried(kind, role))


def _two(value: float) -> str:
    """Return the value with two significant digits."""
    if value >= 100:
        return f"{round(value, 1 - math.floor(math.log10(value))):,.0f}"
    return f"{value:.2g}"


def _shown(role: str) -> str:
    return "processor" if role.startswith("processor") else role


def _what_a_core_carries(found: Sequence[Kind]) -> list[str]:
    rows = [
        [kind.name, _two(kind.frame_bytes / 1000), *(_two(carried(kind, role)) for role in ROLES)] for kind in found
    ]
    absent = _absent(found[0].cpu_ms)
    return [
        "## What one core carries",
        "",
        f"Frames per second of one core at {USE:.0%} load: 1000 · {USE:g} ÷ measured CPU milliseconds for each frame.",
        f"All roles ran on the same two cores with TLS, sealed frames and rights{absent and f' (at 32×32{absent})'}.",
        "The 32×32 row was measured under overload, which fills batches. A processor's figure includes its network.",
        "Under `video`, the cameras send footage of a road, as real cameras do by default; a 1920×1080 row includes",
        "eight cameras of 32×32.",
        "",
        markdown(["frames", "kB each", *map(_shown, ROLES)], rows),
        "",
        *(f"- {kind.name}: `{kind.command}`" for kind in found),
        "",
        "A bridge and a recorder each use at most one core. A processor's network may use more. Bridges share the",
        "cameras' messages. Processors and recorders own whole partitions, so you need at least as many partitions as",
        "processors, and as many as recorders.",
        "",
        "A processor decodes `video` in `decoding_processes` processes, one by default. Each keeps the decoders of",
        f"{_open_decoders(1920, 1080)} cameras of 1920×1080, or {_open_decoders(640, 480)} of 640×480, open. Surplus "
        "cameras decode their groups again from the start.",
        "For more cameras, raise `decoding_processes`, or `decoder_pixels` within a process's memory of 1 GiB.",
    ]


def _absent(cpu_ms: Mapping[str, float]) -> str:
    """Return the words about the roles of `up` that did not run."""
    absent = [role for role in ("console", "monitor") if role not in cpu_ms]
    return f" without {' and '.join(absent)}" if absent else ""


def _open_decoders(width: int, height: int) -> int:
    """Return the cameras of this size whose decoders one process keeps open."""
    return DecodingSettings().open_pixels // (width * height + DECODER_PIXELS)


def _limits() -> list[str]:
    bridge, recorder = read("trunk/bridge.json"), read("trunk/recorder.json")
    (gpu,) = (row for row in rows("system") if row.what.startswith("on a GPU: 32×32"))
    return [
        "## Each role alone, at full speed",
        "",
        markdown(
            ["role", "measured", "command"],
            [
                [
                    "bridge, frames of 2.3 kB, without TLS",
                    f"{bridge['median']['ours']['messages_per_s']:,.0f} frames/s, "
                    f"{bridge['median']['ours']['cpu_us_per_message']:.1f} µs each",
                    f"`{bridge['command']}`",
                ],
                [
                    "recorder, SQLite, verdicts through Kafka",
                    f"{recorder['holds']['verdicts_per_s']:,.0f} verdicts/s, "
                    f"{recorder['holds']['cpu_us_per_verdict']:.1f} µs each",
                    f"`{recorder['command']}`",
                ],
                [gpu.what, gpu.measured, gpu.command],
            ],
        ),
    ]


def _server() -> list[str]:
    found = read("cost/footprint.json")
    disk, systems = found["disk_bytes"], found["systems"]
    roles = sorted({role for each in systems.values() for role in each["memory_bytes"]})
    memory = [[role, *(_megabytes(each["memory_bytes"].get(role)) for each in systems.values())] for role in roles]
    memory.append(["all", *(f"**{_megabytes(each['memory_bytes_in_all'])}**" for each in systems.values())])
    stores = [
        ["Python packages of `make setup`", _gigabytes(disk["packages"])],
        ["PyTorch with its CUDA libraries, of these", _gigabytes(disk["packages_of_torch"])],
        ["Kafka's program files", _gigabytes(disk["kafka"])],
        *(
            [f"the state folder with {systems[name]['verdicts']:,} verdicts, {words}", _gigabytes(size)]
            for name, words in SYSTEMS.items()
            for size in [systems[name]["state_bytes"]]
        ),
    ]
    return [
        "## What a server needs",
        "",
        "Megabytes of memory of each role of `up` with the processes that it has started, as proportional set size:",
        "pages that several processes share are divided among them. All roles ran on one machine with "
        f"{found['machine']['cores']} cores,",
        f"{found['warm_s']:g} s after the first verdict (`{found['command']}`).",
        "",
        markdown(["role", *SYSTEMS.values()], memory),
        "",
        *(
            []
            if "grafana" in roles
            else ["Grafana was not installed. More cameras, larger frames and time add to it.", ""]
        ),
        "Gigabytes of disk, without Java, Debian's packages and caches of downloads:",
        "",
        markdown(["store", "GB"], stores),
        "",
        "A state folder grows with the frames, up to [the bounds](operations/storage.md#bounds) of each store.",
    ]


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:,.0f}"


def _gigabytes(size: int) -> str:
    return _two(size / 1e9)


def _growth() -> list[str]:
    document = read("cost/rows.json")
    cells = cells_of(document, "cameras")
    least, most = cells[0], cells[-1]
    brokers = camera_bytes(most, least, ("mosquitto",)) or 0.0
    server = camera_bytes(most, least, ON_THE_SERVER) or 0.0
    rows = [
        [
            f"{cell['cameras']:,}",
            f"{sum(cell['cpu_ms_per_frame'][role] for role in ROLES):.2f}",
            f"{cell['latency_s']['p50']:.3f}",
            f"{cell['latency_s']['p99']:.3f}",
        ]
        for cell in cells
    ]
    return [
        "## How cost grows",
        "",
        "Cost grows with the frame rate by the CPU times above. The next table varies the number of cameras at the",
        f"same total of {least['total_fps']:g} frames per second,{_absent(most['cpu_ms_per_frame'])} "
        f"(`{document['command']}`):",
        "",
        markdown(["cameras", "server's CPU, ms per frame", "latency p50, s", "latency p99, s"], rows),
        "",
        f"Each camera costs {_two(server / 1000)} kB in bridge, processor and recorder together, and",
        f"{_two(brokers / 1000)} kB in mosquitto, mostly for its TLS connection. The database grows with frames, not",
        "with cameras. `record --database-age-s` and `--database-bytes` bound it.",
    ]


def _sizes(found: Sequence[Kind]) -> list[str]:
    rows = []
    for fleet in FLEETS:
        kind = next(each for each in reversed(found) if each.name.startswith(fleet.size))
        rate = fleet.cameras * fleet.frames_per_s
        needs = [cores(fleet, kind, role) for role in ROLES]
        gigabits = rate * kind.frame_bytes * 8 / 1e9
        rows.append(
            [
                f"{fleet.cameras:,}",
                ", ".join(kind.name.split(", ")[:2]),
                f"{fleet.frames_per_s:g}",
                f"{rate:,.0f}",
                _two(gigabits),
                *(f"{need:,}" for need in needs[:2]),
                f"{needs[2] * REPLICAS:,}",
                *(f"{need:,}" for need in needs[3:]),
                _two(rate * DAY_S / 1e6),
            ]
        )
    return [
        "## Worked sizes",
        "",
        f"Cores of each role at {USE:.0%} load. Kafka's are multiplied by its {REPLICAS} replicas. `Gbit/s` is the",
        f"cameras' traffic; Kafka's disks write {REPLICAS} times as much. The last column counts rows of the recorder.",
        "",
        markdown(
            ["cameras", "frames", "frames/s each", "frames/s", "Gbit/s", *map(_shown, ROLES), "million rows/day"], rows
        ),
        "",
        "The arithmetic has limits:",
        "",
        "- It multiplies measurements on two cores. Nothing above 10,000 cameras and one machine has been run.",
        "- One mosquitto is one process on one core. Split a larger fleet by site: one mosquitto with its bridges for",
        "  each site, and one Kafka for all.",
        "- The rate of one partition was not measured alone. It is at least the rate of one processor.",
        "- Several recorders share a PostgreSQL ([its cost](results/recorders/README.md)).",
        "- Previews, quarantined probes and STRIP's checks add to these figures, according to their settings.",
    ]


def page() -> str:
    """Return the page as Markdown."""
    found = kinds()
    lines = [
        "# Capacity",
        "",
        "To size a fleet, divide its frames per second by a role's figure under *What one core carries*: the result is",
        "the cores of that role. `python -m benchmarks.pages.capacity` makes this page from measurements; each table",
        "names the commands that measured.",
        "",
        *_server(),
        "",
        *_what_a_core_carries(found),
        "",
        *_sizes(found),
        "",
        *_limits(),
        "",
        *_growth(),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    arguments = command_line(__doc__, out=PAGE)
    with replacing(arguments.out) as fresh:
        fresh.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
