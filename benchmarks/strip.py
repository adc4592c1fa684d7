"""STRIP on ResNet-20: `python -m benchmarks.strip [--bundle DIR] [--inputs 1000] [--json FILE]`.

Two sides check the same CIFAR-10 pictures, clean ones of the last 1,000 training pictures, which took no part in the
training: the stage as it runs live (sequential where the bundle has limits for it, overlays of several frames together)
and a loop that puts one batch of all overlays through the network for each input. In turns, on one thread, in CPU
seconds, so that other processes disturb both alike. On a GPU, when there is one: frames a second with all overlays.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from infra.cli.lab.evaluate import bundle_folder
from infra.environment import Environment
from lab.data import to_frames
from processors.bundle import Bundle, load_bundle
from processors.device.precision import arithmetic, choose_precision
from processors.pipeline import Pipeline
from processors.stages.strip import class_entropy
from schemas.errors import ConfigError

HELD_OUT: Final = 1000
BLOCK: Final = 100
"""Inputs that each side takes in its turn."""
AT_ONCE: Final = 50
GPU_FRAMES: Final = 256
GPU_ROUNDS: Final = 20


def held_out(count: int) -> Tensor:
    """The first `count` of the held-out pictures, again from the start where there are fewer: (count, 3, 32, 32)."""
    folder = Environment().data
    if folder is None:
        raise ConfigError("expected POINTILLIST_DATA with cifar10.npz in it; it is not set")
    with np.load(folder / "cifar10.npz") as data:
        pictures = data["train_x"][-HELD_OUT:]
    return to_frames(np.resize(pictures, (count, *pictures.shape[1:])), torch.device("cpu"))


def loop(bundle: Bundle, frames: Tensor) -> Tensor:
    """Mean entropy (B,), one frame after the other."""
    overlays = bundle.overlays
    assert overlays is not None
    return torch.stack([class_entropy(bundle.logits(frame[None] + overlays)).mean() for frame in frames])


def cpu_s(run: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    started = time.process_time()
    run()
    return time.process_time() - started


@torch.inference_mode()
def on_cpu(bundle: Bundle, frames: Tensor) -> dict[str, object]:
    """Both sides in turns of `BLOCK` inputs."""
    pipeline = Pipeline(bundle)
    passes: list[Tensor] = []

    def staged(block: Tensor, sequential: bool) -> None:
        parts = block.split(AT_ONCE)  # type: ignore[no-untyped-call]  # no annotations
        passes.extend(pipeline.strip(some, sequential=sequential).passes for some in parts)

    staged(frames[:2], True)
    loop(bundle, frames[:2])
    passes.clear()
    stage_s: list[float] = []
    loop_s: list[float] = []
    for start in range(0, len(frames), BLOCK):
        block = frames[start : start + BLOCK]
        stage_s.append(cpu_s(lambda block=block: staged(block, True)))  # type: ignore[misc]  # a default argument
        loop_s.append(cpu_s(lambda block=block: loop(bundle, block)))  # type: ignore[misc]
    ratios = [b / a for a, b in zip(stage_s, loop_s, strict=True)]
    return {
        "ratio": sum(loop_s) / sum(stage_s),
        "ratio_of_blocks": [min(ratios), max(ratios)],
        "stage_cpu_s": sum(stage_s),
        "loop_cpu_s": sum(loop_s),
        "mean_passes": float(torch.cat(passes).float().mean()),
        "inputs": len(frames),
    }


@torch.inference_mode()
def on_gpu(bundle: Bundle, frames: Tensor) -> dict[str, object]:
    """Frames a second that go through with all overlays, in the arithmetic that the processor would choose."""
    pipeline = Pipeline(bundle)
    precision = choose_precision(pipeline)
    batch = frames[:GPU_FRAMES].to(bundle.device)
    taken = []
    with arithmetic(bundle.device, precision):
        for _ in range(GPU_ROUNDS + 3):
            torch.cuda.synchronize()
            started = time.perf_counter()
            pipeline.strip(batch, sequential=False)
            torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
    seconds = sorted(taken[3:])
    return {
        "frames_per_s": len(batch) / seconds[len(seconds) // 2],
        "slowest_frames_per_s": len(batch) / seconds[-1],
        "precision": precision,
        "gpu": torch.cuda.get_device_name(bundle.device),
    }


def main() -> None:
    """Measure, print and, with `--json`, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="cifar10")
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = bundle_folder(arguments.bundle)
    bundle = load_bundle(folder, torch.device("cpu"))
    if bundle.settings.strip is None:
        raise ConfigError(f"bundle {folder}: expected a strip table; pointillist lab calibrate writes it")
    frames = held_out(arguments.inputs)
    report: dict[str, object] = on_cpu(bundle, frames)
    if torch.cuda.is_available():
        report["gpu"] = on_gpu(load_bundle(folder, torch.device("cuda")), frames)
    else:
        report["gpu"] = "not measured"
    report |= {
        "bundle": bundle.model_id,
        "sequential": bool(bundle.settings.strip.rounds),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    for name, value in report.items():
        print(f"{name:18} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
