"""The throughput of STRIP on ResNet-20: `python -m benchmarks.speed.strip [--bundle DIR] [--inputs 1000] [--json
FILE]`.

All sides check the same CIFAR-10 pictures: clean ones of the last 1,000 training pictures, which were held out of the
training. One side is the stage as it runs live: sequential if the bundle has limits for it, overlays of several frames
together, with the backend that a processor would choose. The other side is a loop that runs one batch of all overlays
through the network for each input.

`ratio` is the loop's time with the network in torch ÷ the stage's. `ratio_of_one_backend` is the loop's time with the
stage's backend ÷ the stage's. `ratio_in_torch` runs both in torch. The sides take turns on one thread, in CPU seconds,
so that other processes affect all alike. A GPU is measured by `make gpu-report`.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.command_line import command_line
from benchmarks.harness.cpu_time import timed
from benchmarks.harness.data_sets import data_file
from benchmarks.harness.document import report
from benchmarks.speed.device import one_call_s
from infra.cli.lab.shared import bundle_folder
from lab.data import to_frames
from processors.bundle import Bundle, load_bundle
from processors.device.backends.choose import BackendRequest
from processors.device.backends.engines import engines
from processors.device.precision import arithmetic, choose_precision
from processors.pipeline import Pipeline
from processors.stages.strip import class_entropy
from schemas.errors import ConfigError

HELD_OUT: Final = 1000
BLOCK: Final = 128
"""Inputs of each side per turn."""
AT_ONCE: Final = 64
"""The largest batch of a processor."""
WARM_UP: Final = 3


def held_out(count: int) -> Tensor:
    """Return the first `count` held-out pictures, repeated as needed: (count, 3, 32, 32)."""
    with np.load(data_file("cifar10.npz")) as data:
        pictures = data["train_x"][-HELD_OUT:]
    return to_frames(np.resize(pictures, (count, *pictures.shape[1:])), torch.device("cpu"))


def loop(bundle: Bundle, frames: Tensor) -> Tensor:
    """Return the mean entropy (B,), computed one frame after the other."""
    overlays = bundle.overlays
    assert overlays is not None
    return torch.stack([class_entropy(bundle.logits(frame[None] + overlays)).mean() for frame in frames])


@torch.inference_mode()
def on_cpu(bundle: Bundle, frames: Tensor) -> dict[str, object]:
    """Measure all sides in turns of `BLOCK` inputs."""
    live, chosen = engines(bundle, BackendRequest(), "none")
    plain = Pipeline(bundle, "none")
    passes: list[Tensor] = []

    def staged(pipeline: Pipeline, block: Tensor) -> None:
        parts = block.split(AT_ONCE)  # type: ignore[no-untyped-call]  # no annotations
        found = [pipeline.strip(some).passes for some in parts]
        if pipeline is live:
            passes.extend(found)

    sides: dict[str, Callable[[Tensor], object]] = {
        "stage": partial(staged, live),
        "stage_in_torch": partial(staged, plain),
        "loop": partial(loop, bundle),
        "loop_of_one_backend": partial(loop, live.bundle),
    }
    for run in sides.values():
        run(frames[:2])
    passes.clear()
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for start in range(0, len(frames), BLOCK):
        block = frames[start : start + BLOCK]
        for name, run in sides.items():
            taken[name].append(timed(partial(run, block))[1])
    ratios = [b / a for a, b in zip(taken["stage"], taken["loop"], strict=True)]
    total = {name: sum(seconds) for name, seconds in taken.items()}
    return {
        "ratio": total["loop"] / total["stage"],
        "ratio_of_blocks": [min(ratios), max(ratios)],
        "ratio_of_one_backend": total["loop_of_one_backend"] / total["stage"],
        "ratio_in_torch": total["loop"] / total["stage_in_torch"],
        "cpu_s": total,
        "backend": str(chosen.classifier),
        "mean_passes": float(torch.cat(passes).float().mean()),
        "inputs": len(frames),
    }


@torch.inference_mode()
def all_overlays(bundle: Bundle, frames: Tensor, rounds: int) -> dict[str, object]:
    """Return the frames per second with all overlays on the bundle's device, in the precision that a processor would
    choose. All `frames` (B, C, H, W) are one batch.
    """
    pipeline = Pipeline(bundle)
    precision = choose_precision(pipeline)
    batch = frames.to(bundle.device)
    with arithmetic(bundle.device, precision):
        taken = [
            one_call_s(lambda: pipeline.strip(batch, sequential=False), bundle.device) for _ in range(rounds + WARM_UP)
        ]
    seconds = taken[WARM_UP:]
    return {
        "frames_per_s": len(batch) / statistics.median(seconds),
        "slowest_frames_per_s": len(batch) / max(seconds),
        "overlays": 0 if bundle.overlays is None else len(bundle.overlays),
        "batch": len(batch),
        "precision": precision,
    }


def main() -> None:
    """Measure, print and, with `--json`, save."""
    arguments = command_line(__doc__, bundle="cifar10", inputs=1000, json=Path)
    torch.set_num_threads(1)
    folder = bundle_folder(arguments.bundle)
    bundle = load_bundle(folder, torch.device("cpu"))
    if bundle.settings.strip is None:
        raise ConfigError(f"bundle {folder}: expected a strip table, got none. Run `pointillist lab calibrate`.")
    frames = held_out(arguments.inputs)
    found: dict[str, object] = on_cpu(bundle, frames)
    found |= {
        "bundle": bundle.model_id,
        "sequential": bool(bundle.settings.strip.rounds),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    for name, value in found.items():
        print(f"{name:18} {value}")
    report(found, arguments.json, shown=False)


if __name__ == "__main__":
    main()
