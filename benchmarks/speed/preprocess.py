"""The cost of a bundle's preprocessing stages: `python -m benchmarks.speed.preprocess [--json FILE]`.

The figure is the frames per second of the processor's batch executor, from a camera's messages to verdicts: masks,
decoding, rebuilding, stages, network. The ratio compares the bundle with `dct-quantisation` and `grid-distortion` to
the one without, for frames of 32×32, 640×480 and 1920×1080. Both sides take turns on one thread in this process, on the
same messages, with the same network. CPU seconds limit the influence of other processes. The median of the rounds and
their spread are printed. On a GPU both sides are compiled if possible, and wall time is measured. Without a GPU its
line is marked as not measured.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prometheus_client import CollectorRegistry

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import report
from processors.arrivals.job import FrameJob, Shape, open_record
from processors.bundle import load_bundle, shipped_bundle
from processors.device.batch_executor import BatchExecutor, choose_device
from processors.device.compiled_pipeline import CompiledPipeline
from processors.device.precision import choose_precision
from processors.metrics import ProcessorMetrics
from processors.pipeline import Pipeline
from producers.scene import SceneSimulator
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import Encoding, encode_frame

CAMERA = CameraId("bench/camera")
KEYS = KeyRing(bytes(range(32)))
STAGES = """
[[preprocess]]
stage = "dct-quantisation"
table = "dct-table.txt"

[[preprocess]]
stage = "grid-distortion"
limit = 0.15
cell = 8
"""
FRAMES = {Shape(32, 32, 3): 64, Shape(480, 640, 3): 1, Shape(1080, 1920, 3): 1}
"""Batch size of each shape in a processor on a CPU."""
GPU_FRAMES = {Shape(32, 32, 3): 1024, Shape(480, 640, 3): 3, Shape(1080, 1920, 3): 1}


@dataclass
class Record:
    """A message in the form that Kafka's client returns."""

    value: bytes | None
    key: bytes | None
    offset: int
    partition: int = 0
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp: int = 0


def taken_frames(shape: Shape, count: int, drop: float) -> list[FrameJob]:
    """Return scenes of one camera as they arrive from Kafka."""
    simulator = SceneSimulator(0, 0, (shape.height, shape.width))
    key = KEYS.key(CAMERA, 0)
    frames = []
    for seq in range(count):
        picture = np.ascontiguousarray(simulator.render(seq)[0])
        message = encode_frame(key, 1, seq, 0, picture, Encoding(round(64 * drop)))
        frames.append(open_record(Record(message, CAMERA.encode(), seq), KEYS))
    return frames


def batch_executor(folder: Path, device: torch.device, shape: Shape, batch: int) -> BatchExecutor:
    """Return a processor's batch executor with the bundle in `folder`, warmed up for one shape."""
    pipeline = Pipeline(load_bundle(folder, device))
    compiled = CompiledPipeline(pipeline, compiles=device.type == "cuda", precision=choose_precision(pipeline))
    compiled.compile_for(shape, batch)
    return BatchExecutor(compiled, ProcessorMetrics(CollectorRegistry()))


def staged_copy(bundle: Path, folder: Path) -> Path:
    """Return a copy of the bundle with the two stages switched on."""
    copy = shutil.copytree(bundle, folder / "staged")
    if not (copy / "dct-table.txt").exists():
        shutil.copy(shipped_bundle("cifar10") / "dct-table.txt", copy)
    with (copy / "model.toml").open("a", encoding="utf-8") as settings:
        settings.write(STAGES)
    return copy


def compare(
    plain: BatchExecutor, staged: BatchExecutor, frames: list[FrameJob], rounds: int, round_s: float
) -> dict[str, list[float]]:
    """Return the seconds of one batch on each side, for each of `rounds`.

    A round takes about `round_s` on either side, and the sides alternate call by call.
    """
    on_gpu = torch.cuda.is_available() and plain.pipeline.bundle.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time

    def timed(executor: BatchExecutor) -> float:
        start = clock()
        executor.classify(frames)
        taken_s = clock() - start
        for frame in frames:
            if frame.error is not None:
                raise frame.error
        return taken_s

    for _ in range(3):
        timed(plain), timed(staged)
    calls = max(1, round(round_s / max(timed(plain), 1e-6)))
    taken: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(rounds):
        pairs = [(timed(plain), timed(staged)) for _ in range(calls)]
        for side, seconds in zip(taken, zip(*pairs, strict=True), strict=True):
            taken[side].append(statistics.mean(seconds))
    return taken


def row(shape: Shape, batch: int, taken: dict[str, list[float]]) -> dict[str, Any]:
    """Print and return one line of the report."""
    ratios = [without / with_ for without, with_ in zip(taken["without"], taken["with"], strict=True)]
    rate = {side: batch / statistics.median(seconds) for side, seconds in taken.items()}
    ratio = statistics.median(ratios)
    print(
        f"{shape.width}×{shape.height} batch {batch:4}: with {rate['with']:9,.1f} frames/s, without "
        f"{rate['without']:9,.1f}: {ratio:.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
    )
    return {
        "height": shape.height, "width": shape.width, "batch": batch, "ratio": ratio, "ratios": ratios,
        "frames_per_second": rate, "seconds": taken,
    }  # fmt: skip


def main() -> None:
    """Measure, print and, with `--json`, save."""
    arguments = command_line(
        __doc__,
        bundle=Option("cifar10", "a shipped bundle"),
        drop=0.25,
        rounds=9,
        seconds=Option(1.0, "length of one round on one side"),
        json=Path,
    )
    torch.set_num_threads(1)
    device = choose_device("auto")
    on_gpu = device.type == "cuda"
    bundle = shipped_bundle(arguments.bundle)
    rows = []
    print(f"stages on ÷ off, {'GPU' if on_gpu else 'one thread of the CPU'}:")
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        staged = staged_copy(bundle, Path(folder))
        for shape, batch in (GPU_FRAMES if on_gpu else FRAMES).items():
            frames = taken_frames(shape, batch, arguments.drop)
            sides = [batch_executor(each, device, shape, batch) for each in (bundle, staged)]
            rows.append(row(shape, batch, compare(sides[0], sides[1], frames, arguments.rounds, arguments.seconds)))
    if not on_gpu:
        print("GPU: not measured")
    found = {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine(),
        "gpu": "measured" if on_gpu else "not measured",
        "bundle": arguments.bundle,
        "stages": ["dct-quantisation", "grid-distortion"],
        "torch": torch.__version__,
        "drop": arguments.drop,
        "rows": rows,
    }
    report(found, arguments.json, shown=False)


if __name__ == "__main__":
    main()
