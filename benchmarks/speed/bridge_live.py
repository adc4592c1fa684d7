"""The bridge's CPU time of a frame at live rates: `python -m benchmarks.speed.bridge_live --json FILE`.

Frames of 2.3 KB come one by one from 32 cameras at each rate, without TLS, and then as fast as the bridge accepts them.
`over_flood` is the CPU time of a frame at a rate ÷ that of the flood, which `benchmarks.speed.bridge` measures too. The
rates take turns in each round, and medians over the rounds count.

The profile is the share of samples of the process by the part of the bridge that was running. It shows where the time
of a frame goes that comes alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import statistics
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import machine, report
from benchmarks.speed.bridge import (
    CAMERAS,
    FIRST_BOOT,
    PARTITIONS,
    SECRET,
    WARM_UP,
    Side,
    measure,
    run_ours,
    running_brokers,
)
from benchmarks.speed.bridge_load import signed_frames
from infra.local.topics import pointillist_topics
from schemas.keys.keys import KeyRing
from schemas.topics import KafkaTopic

RATES: Final = (16.0, 64.0, 256.0, 1024.0)
"""Frames per second of all cameras together."""
SAMPLE_S: Final = 0.001
"""CPU time between two samples, at least; many kernels count in steps of 4 ms."""
PARTS: Final = (
    ("lag of the processors", ("bridge/kafka/backlog", "transport/kafka/admin")),
    ("requests of the server", ("bridge/requests/", "transport/kafka/reader", "aiokafka/consumer")),
    ("confirmations, metrics", ("bridge/confirmations", "bridge/rejections", "prometheus_client")),
    ("frames: parse, tag", ("bridge/records", "schemas/keys/", "schemas/messages/", "bridge/quota")),
    ("MQTT", ("bridge/mqtt/", "transport/mqtt/", "paho/")),
    ("Kafka: producer", ("aiokafka/producer", "aiokafka/record", "transport/kafka/sender", "bridge/kafka/lanes")),
    ("Kafka: connection", ("aiokafka/", "asyncio/streams")),
    ("event loop: wait", ("selectors.py",)),
    ("event loop: rest", ("asyncio/",)),
)
"""Parts of the bridge, by files on the stack of a sample. The first that fits counts."""


def run_sampled(samples: Path, host: str, port: int, bootstrap: str) -> None:
    """Run our bridge, and write the samples of each part to a file at its end."""
    counts: Counter[str] = Counter()

    def sample(_: int, frame: FrameType | None) -> None:
        files = []
        while frame is not None:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        stack = " ".join(files)
        counts[next((part for part, marks in PARTS if any(mark in stack for mark in marks)), "other")] += 1

    signal.signal(signal.SIGPROF, sample)
    signal.signal(signal.SIGUSR1, lambda *_: signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S))
    run_ours(host, port, bootstrap)
    signal.setitimer(signal.ITIMER_PROF, 0)
    samples.write_text(json.dumps(counts))


async def compare(rates: list[float], seconds: float, rounds: int) -> dict[str, Any]:
    """Measure each rate and the flood in turns, then sample each once."""
    loads = [(f"{rate:g}/s", rate, round(rate * seconds)) for rate in rates] + [("flood", 0.0, 20_000)]
    raw: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in loads}
    profiles: dict[str, dict[str, float]] = {}
    frames = signed_frames(KeyRing(SECRET), CAMERAS, 1, FIRST_BOOT)
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        samples = Path(folder) / "samples.json"
        async with running_brokers(pointillist_topics(PARTITIONS)) as brokers:
            for number in range(rounds + 1):
                sampled = number == rounds
                for name, rate, messages in loads:
                    run, on_warm = (partial(run_sampled, samples), signal.SIGUSR1) if sampled else (run_ours, None)
                    side = Side("ours", run, KafkaTopic.FRAMES.value, in_child=False, on_warm=on_warm)
                    warm = WARM_UP if not rate else round(2 * rate)
                    samples.unlink(missing_ok=True)
                    found = await measure(side, brokers, frames, messages, rate=rate, warm_up=warm)
                    if sampled:
                        counts = json.loads(samples.read_text())
                        profiles[name] = {part: count / sum(counts.values()) for part, count in counts.items()}
                    else:
                        raw[name].append(found)
                        print(name, found, file=sys.stderr, flush=True)
    cpu = {name: statistics.median(each["cpu_us_per_message"] for each in found) for name, found in raw.items()}
    return {
        "cpu_us_per_message": cpu,
        "over_flood": {name: each / cpu["flood"] for name, each in cpu.items()},
        "profile": profiles,
        "rounds": raw,
        "machine": machine("aiokafka", "paho-mqtt"),
    }


def table(document: dict[str, Any]) -> str:
    """Return the profile as microseconds of a frame, with one column for each load."""
    loads = list(document["cpu_us_per_message"])
    lines = [
        "| µs of a frame | " + " | ".join(loads) + " |",
        "| --- |" + " ---: |" * len(loads),
    ]
    for part in [*(part for part, _ in PARTS), "other"]:
        shares = [document["profile"][each].get(part, 0.0) * document["cpu_us_per_message"][each] for each in loads]
        lines.append(f"| {part} | " + " | ".join(f"{each:.0f}" for each in shares) + " |")
    lines.append("| all | " + " | ".join(f"{document['cpu_us_per_message'][each]:.0f}" for each in loads) + " |")
    lines.append("| ÷ flood | " + " | ".join(f"{document['over_flood'][each]:.1f}" for each in loads) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the JSON."""
    arguments = command_line(
        __doc__,
        json=Path,
        rates=Option(float, "frames per second (default: 16 64 256 1024)", several="+"),
        seconds=10.0,
        rounds=3,
    )
    logging.basicConfig(level=logging.ERROR)
    document = asyncio.run(compare(arguments.rates or list(RATES), arguments.seconds, arguments.rounds))
    print(table(document))
    report(document | {"command": arguments.command}, arguments.json)


if __name__ == "__main__":
    main()
