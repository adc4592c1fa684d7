"""Cost of each stage as a multiple of one ResNet-20 forward: `python -m benchmarks.speed.stages [--json FILE]`.

Both sides take turns on one thread in this process, on the same batch. CPU seconds limit the influence of other
processes. The median of the rounds and their spread are printed. The masks are those of a camera.
`default_over_classifier` and `paper_over_classifier` are the two reconstructions in ResNet-20 forwards.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.command_line import command_line
from benchmarks.harness.cpu_time import timed
from benchmarks.harness.document import report
from processors.networks.resnet import resnet20
from processors.stages.denoise import denoise
from processors.stages.reconstruct import reconstruct
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.limits import BLOCK_PIXELS
from schemas.pixels.masks import kept_mask

WARM_UP = 2


def scenes(batch: int, generator: torch.Generator) -> Tensor:
    """Return smooth random frames (batch, 3, 32, 32) in [0, 1] with a little noise.

    Some stages' costs depend on such content.
    """
    coarse = torch.rand(batch, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic", align_corners=False)
    return (smooth + 0.03 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


def camera_masks(batch: int, drop: float, height: int = 32, width: int = 32) -> Tensor:
    """Return a camera's masks of `batch` successive frames: (batch, 1, height, width) bool."""
    key = derive_camera_key(bytes(range(32)), CameraId("bench/camera"))
    dropped = round(drop * BLOCK_PIXELS)
    return torch.from_numpy(np.stack([kept_mask(key, 1, seq, height, width, dropped) for seq in range(batch)])[:, None])


@torch.inference_mode()
def main() -> None:
    """Measure, print and, with `--json`, save."""
    arguments = command_line(__doc__, batch=256, drop=0.25, rounds=7, json=Path)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    frames = scenes(arguments.batch, generator)
    kept = camera_masks(arguments.batch, arguments.drop)
    network = resnet20(10).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs
    sides: dict[str, Callable[[], object]] = {
        "ResNet-20 forward": lambda: network(frames),
        "reconstruct default": lambda: reconstruct(frames, kept),
        "reconstruct paper": lambda: reconstruct(frames, kept, "paper"),
        "reconstruct plate": lambda: reconstruct(frames, kept, "plate"),
        "denoise bayes": lambda: denoise(frames),
        "denoise visu": lambda: denoise(frames, "visu"),
    }
    for run in sides.values():
        for _ in range(WARM_UP):
            run()
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, run in sides.items():
            taken[name].append(timed(run)[1])
    unit = statistics.median(taken["ResNet-20 forward"])
    ratio = {name: statistics.median(values) / unit for name, values in taken.items()}
    found: dict[str, object] = {
        "default_over_classifier": ratio["reconstruct default"],
        "paper_over_classifier": ratio["reconstruct paper"],
        "batch": arguments.batch,
        "drop": arguments.drop,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "cpu_s": taken,
        "ratio": ratio,
    }
    for name, values in taken.items():
        middle = statistics.median(values)
        spread = f"from {min(values):.3f} to {max(values):.3f}"
        print(f"{name:22} {middle:7.3f} s ({spread}) {ratio[name]:6.2f} forwards")
    report(found, arguments.json, shown=False)


if __name__ == "__main__":
    main()
