"""Frames a second through the whole chain on the device: the step `device` of `benchmarks.speed.gpu_report`.

The first measurement takes packed 32×32 RGB frames from the host's memory to verdicts in it, over several batch sizes.
It unpacks, reconstructs, denoises and classifies, with the compiled pipeline on CUDA. The second takes 1920×1080 frames
that are already on the device through reconstruct and denoise.

On CUDA each figure is compared with the roofline: the longer of the times for the floating point operations of its
products and for their bytes. The speeds are those of one large matrix product and one large copy in the same run. The
bytes are what every convolution and product reads and writes once; everything else counts as fused with them.

Without CUDA, one thread of the CPU is measured in CPU seconds, and there is no roofline.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.stages import camera_masks, scenes
from processors.arrivals.job import Shape
from processors.bundle import load_bundle
from processors.device.batch_executor import choose_device
from processors.device.compiled_pipeline import CompiledPipeline, UndecodedFrames
from processors.device.precision import Precision, arithmetic, choose_precision
from processors.pipeline import Pipeline
from schemas.errors import typed_text
from schemas.limits import BLOCK
from schemas.pixels.masks import ROWS

SMALL = Shape(32, 32, 3)
LARGE = Shape(1080, 1920, 3)
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Work:
    """The minimum work of the device for one frame."""

    flops: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Peak:
    """The measured speed of the device on one large product and one large copy, per second."""

    flops: float
    bytes: float


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]  # no annotations
    """A counter of the numbers that convolutions and matrix products read and write, each once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # no annotations
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._schema.name in ("aten::convolution", "aten::addmm", "aten::mm", "aten::bmm"):
            self.numbers += result.numel() + sum(x.numel() for x in args if isinstance(x, Tensor))
        return result


def work_per_frame(run: Callable[[Tensor, Tensor], object], frames: Tensor, kept: Tensor, number_bytes: int) -> Work:
    """Return the work per frame of `run` on frames (B, C, H, W) and their masks (B, 1, H, W)."""
    # With gradients, every product is a separate torch operator and is counted.
    with FlopCounterMode(display=False) as flops, _Traffic() as traffic:
        run(frames.clone().requires_grad_(), kept)
    return Work(flops.get_total_flops() / len(frames), traffic.numbers * number_bytes / len(frames))


def wait(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return the clock of measurements on a device: CPU time on a CPU, whose cores other processes share."""
    return time.perf_counter if device.type == "cuda" else time.process_time


def one_call_s(run: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Return the seconds of one call, as the mean of `calls`, until the device has finished them."""
    clock = clock_of(device)
    wait(device)
    start = clock()
    for _ in range(calls):
        run()
    wait(device)
    return (clock() - start) / calls


def seconds_of(run: Callable[[], object], device: torch.device, at_least_s: float) -> list[float]:
    """Return the seconds of one call, for each of `ROUNDS` series of calls that together take about `at_least_s`."""
    one_call_s(run, device)
    calls = max(1, round(at_least_s / ROUNDS / max(one_call_s(run, device), 1e-6)))
    return [one_call_s(run, device, calls) for _ in range(ROUNDS)]


def peak_of(device: torch.device, precision: Precision) -> Peak:
    """Measure the device's own speed: a product of 8192×8192 matrices and a copy of 1 GiB."""
    side, numbers = 8192, 2**28
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    source = torch.zeros(numbers, device=device)
    target = torch.empty_like(source)
    with arithmetic(device, precision):
        product_s = min(seconds_of(lambda: a @ b, device, 1.0))
    copy_s = min(seconds_of(lambda: target.copy_(source), device, 1.0))
    return Peak(2 * side**3 / product_s, 2 * 4 * numbers / copy_s)


def whole_path(compiled: CompiledPipeline, batch: int, drop: float) -> Callable[[], object]:
    """Return a call that takes one batch of packed 32×32 frames from the host's memory to verdicts in it."""
    device = compiled.pipeline.bundle.device
    generator = torch.Generator().manual_seed(0)
    seeds = torch.randint(0, 2**32, (batch, 2), generator=generator).to(device)
    # Bit rows with the right number of dropped pixels, as in a camera's codebook.
    row = (1 << (BLOCK - round(drop * BLOCK))) - 1
    table = torch.full((16, ROWS, BLOCK), row, dtype=torch.uint8, device=device)
    slots = torch.arange(batch, device=device) % len(table)
    whole = torch.zeros(batch, dtype=torch.bool, device=device)
    count = batch * SMALL.height * SMALL.width * row.bit_count() // BLOCK
    pixels = (scenes(batch, generator).permute(0, 2, 3, 1).reshape(-1, 3)[:count] * 255).byte()
    if device.type == "cuda":
        pixels = pixels.pin_memory()

    def decode(kept: Tensor, sent: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        return pixels.to(device, non_blocking=True), kept, sent, None, None

    @torch.inference_mode()
    def run() -> object:
        done = compiled(UndecodedFrames(seeds, table[slots], whole, SMALL, decode))
        assert done is not None
        return done[1].class_id.cpu(), done[1].confidence.cpu()

    return run


def rebuilding(pipeline: Pipeline, precision: Precision, batch: int, drop: float) -> Callable[[], object]:
    """Return a call that reconstructs and denoises a batch of 1920×1080 frames on the device, compiled if possible."""
    frames, kept = large_frames(batch, drop, pipeline.bundle.device)

    def plain(frames: Tensor, kept: Tensor) -> Tensor:
        return pipeline.rebuild(frames, kept)

    chosen = plain
    if pipeline.bundle.device.type == "cuda":
        try:
            compiled = torch.compile(plain, mode="reduce-overhead", dynamic=False, fullgraph=True)
            with torch.inference_mode(), arithmetic(pipeline.bundle.device, precision):
                for _ in range(3):
                    compiled(frames, kept)
            chosen = compiled
        except Exception as error:  # a compiler may raise anything
            print(f"1920×1080 runs uncompiled: {typed_text(error)}")

    @torch.inference_mode()
    def run() -> object:
        with arithmetic(pipeline.bundle.device, precision):
            return chosen(frames, kept)

    return run


def large_frames(batch: int, drop: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return smooth frames (batch, 3, 1080, 1920) and a camera's masks for them."""
    coarse = torch.rand(batch, 3, 34, 60, generator=torch.Generator().manual_seed(0))
    size = LARGE.height, LARGE.width
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False).clamp(0, 1)
    return smooth.to(device), camera_masks(batch, drop, *size).to(device)


def row(shape: Shape, batch: int, taken: list[float], work: Work, peak: Peak | None) -> dict[str, Any]:
    """Print and return one line of the report."""
    middle = statistics.median(taken)
    result: dict[str, Any] = {
        "height": shape.height,
        "width": shape.width,
        "batch": batch,
        "seconds": taken,
        "frames_per_second": batch / middle,
        "per_frame": asdict(work),
        "roofline_share": None,
    }
    line = f"{shape.width}×{shape.height} batch {batch:5}: {batch / middle:11,.1f} frames/s"
    if peak is not None:
        bound_s = batch * max(work.flops / peak.flops, work.bytes / peak.bytes)
        result["roofline_share"] = bound_s / middle
        line += f", {bound_s / middle:.0%} of the roofline"
    print(line)
    return result


def measured(bundle: Path, drop: float, seconds: float, batches: Mapping[Shape, Sequence[int]]) -> dict[str, Any]:
    """Measure both, print and return the report; `seconds` are those of each line.

    `batches` are the batch sizes of 32×32 and of 1920×1080 frames.
    """
    device = choose_device("auto")
    on_gpu = device.type == "cuda"
    pipeline = Pipeline(load_bundle(bundle, device))
    precision = choose_precision(pipeline)
    peak = peak_of(device, precision) if on_gpu else None
    number_bytes = 2 if precision == "bf16" else 4
    small = scenes(2, torch.Generator().manual_seed(0)).to(device), camera_masks(2, drop).to(device)
    large = large_frames(1, drop, device) if on_gpu else None
    rows = []
    for batch in batches[SMALL]:
        compiled = CompiledPipeline(pipeline, compiles=on_gpu, precision=precision)
        compiled.compile_for(SMALL, batch)
        taken = seconds_of(whole_path(compiled, batch, drop), device, seconds)
        rows.append(row(SMALL, batch, taken, work_per_frame(pipeline, *small, number_bytes), peak))
    for batch in batches[LARGE]:
        taken = seconds_of(rebuilding(pipeline, precision, batch, drop), device, seconds)
        # The chain consists of convolutions over every pixel: on the CPU the cost of a smaller frame is scaled up.
        work = work_per_frame(pipeline.rebuild, *(large or small), number_bytes)
        if large is None:
            scale = LARGE.height * LARGE.width / (SMALL.height * SMALL.width)
            work = Work(work.flops * scale, work.bytes * scale)
        rows.append(row(LARGE, batch, taken, work, peak))
    return {
        "precision": precision,
        "peak": asdict(peak) if peak else None,
        "drop": drop,
        "small": fastest(rows, SMALL),
        "large": fastest(rows, LARGE),
        "rows": rows,
    }


def fastest(rows: Sequence[dict[str, Any]], shape: Shape) -> dict[str, Any] | None:
    """Return the row with the most frames a second among those of a shape; None if there is none."""
    own = [row for row in rows if (row["height"], row["width"]) == (shape.height, shape.width)]
    return max(own, key=lambda row: float(row["frames_per_second"]), default=None)
