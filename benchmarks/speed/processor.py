"""A processor's overhead compared with its network: `python -m benchmarks.speed.processor [--json FILE]`.

The measured path leads from Kafka records in memory to verdicts as bytes, in one process on one thread, without
brokers. It covers tags, masks, unpacking, rebuilding or resampling, network and verdict. `ratio` is that time ÷ the
bare network's with the same batch size. `unpacking` covers masks and unpacking alone, to whole frames. The sides take
turns. Figures are CPU seconds, medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from aiokafka import ConsumerRecord
from prometheus_client import CollectorRegistry

from benchmarks.speed.own_networks import NETWORKS, random_bundle
from benchmarks.speed.stages import cpu_seconds
from processors.arrivals.job import FrameJob, open_record
from processors.bundle import load_bundle, shipped_bundle
from processors.device.batch_executor import BatchExecutor
from processors.device.codebooks import DeviceCodebooks
from processors.device.loaded_model import LoadedModel
from processors.metrics import ProcessorMetrics
from processors.pipeline import Pipeline
from processors.results.records import verdict_record
from processors.stages.unpack import unpack
from producers.scene import SceneSimulator
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import Encoding, encode_frame

DROPPED: Final = 16
CAMERAS: Final = 4


class Case(NamedTuple):
    """Frames of one size for one network, with the batch size."""

    bundle: str
    width: int
    height: int
    batch: int


CASES: Final = (
    Case("scene", 32, 32, 64),
    Case("scene", 768, 432, 1),
    *(Case(network, 640, 480, 1) for network in NETWORKS),
    *(Case(network, 1920, 1080, 1) for network in ("scene", *NETWORKS)),
)


def records_of(case: Case, keys: KeyRing) -> list[ConsumerRecord[bytes, bytes]]:
    """Return records as Kafka's client returns them, of cameras in turn."""
    scenes = SceneSimulator(0, 0, (case.height, case.width))
    records = []
    for i in range(case.batch):
        key = keys.current(CameraId(f"bench/cam-{i % CAMERAS}"))
        value = encode_frame(key, 1, i, 0, scenes.render(i)[0], Encoding(DROPPED))
        name = key.camera_id.encode()
        records.append(ConsumerRecord("frames", 0, i, 0, 0, name, value, None, len(name), len(value), ()))
    return records


def sides_of(case: Case, folder: Path) -> dict[str, Callable[[], object]]:
    """Return the measured sides of one case, each a call for one batch."""
    keys = KeyRing(bytes(range(32)))
    records = records_of(case, keys)
    bundle = load_bundle(folder, torch.device("cpu"))
    executor = BatchExecutor(Pipeline(bundle), ProcessorMetrics(CollectorRegistry()))
    wanted, classes = bundle.settings.input, tuple(bundle.settings.classes)
    model = LoadedModel(executor, bundle.model_id, wanted.policy, classes, ThreadPoolExecutor(1), None)
    pictures = torch.rand(case.batch, wanted.channels, wanted.height, wanted.width)

    def opened() -> list[FrameJob]:
        return [open_record(record, keys) for record in records]

    def whole() -> list[bytes | None]:
        jobs = opened()
        for job in jobs:
            job.model = model
        executor.classify(jobs)
        return [verdict_record(keys, job).value for job in jobs]

    taken = opened()
    books = DeviceCodebooks(torch.device("cpu"))
    slots = books.slots([(each.key, DROPPED) for each in taken])
    sent = torch.frombuffer(bytearray(b"".join(each.pixels() for each in taken)), dtype=torch.uint8).view(-1, 3)
    probes = torch.zeros(len(taken), dtype=torch.bool)

    def unpacked() -> object:
        seeds = torch.tensor([each.key.frame_seed(each.frame.boot_id, each.frame.seq) for each in taken])
        return unpack(sent, seeds, books.table, slots, probes, case.height, case.width)

    return {"network": lambda: bundle.network_logits(pictures), "whole": whole, "unpacking": unpacked, "tags": opened}


@torch.inference_mode()
def measured(case: Case, folder: Path, rounds: int) -> dict[str, Any]:
    """Return the CPU seconds per frame of each side, and their ratios to the network's."""
    sides = sides_of(case, folder)
    for run in sides.values():
        cpu_seconds(run, 3)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            taken[name] += [seconds / case.batch for seconds in cpu_seconds(run, 1)]
    middle = {name: statistics.median(values) for name, values in taken.items()}
    result = case._asdict() | {
        "ratio": middle["whole"] / middle["network"],
        "unpacking_over_network": middle["unpacking"] / middle["network"],
        "cpu_s_per_frame": middle,
    }
    size = f"{case.width}×{case.height}"
    milliseconds = ", ".join(f"{name} {1000 * seconds:.3f}" for name, seconds in middle.items())
    print(f"{case.bundle:20} {size:>10} × {case.batch:2}: {result['ratio']:5.2f} × the network; ms: {milliseconds}")
    return result


def main() -> None:
    """Measure, print and, with `--json`, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        bundles = {network: random_bundle(Path(folder) / network, network) for network in NETWORKS}
        bundles["scene"] = shipped_bundle("scene")
        rows = [measured(case, bundles[case.bundle], arguments.rounds) for case in CASES]
    document = {"rows": rows, "torch": torch.__version__, "machine": platform.processor() or platform.machine()}
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
