"""One frame as captured, as sent and as rebuilt: `python -m benchmarks.models.dropped --out docs/images/dropped.png`.

It is a frame of the scene simulator. Half of its pixels are dropped, to make the loss visible.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness.command_line import Option, command_line
from lab.data import to_frames
from lab.masks import random_masks
from lab.restoration.psnr import psnr_db
from processors.stages.drop import drop
from processors.stages.reconstruct import reconstruct
from producers.scene import SceneSimulator

GAP = 8
"""Pixels between the pictures."""


def three(height: int, width: int, drop_ratio: float, index: int) -> tuple[NDArray[np.uint8], float]:
    """Return the three pictures side by side, (height, 3·width + 2·GAP, 3) uint8, and the PSNR of the last in dB."""
    picture, _ = SceneSimulator(0, 0, (height, width), 3).render(index)
    clean = to_frames(picture[None], torch.device("cpu"))
    kept = random_masks(1, height, width, drop_ratio, torch.Generator().manual_seed(0))
    sent = drop(clean, kept)
    rebuilt = reconstruct(sent, kept)
    shown = [_pixels(frames[0]) for frames in (clean, sent, rebuilt)]
    gap = np.full((height, GAP, 3), 255, np.uint8)
    return np.concatenate([shown[0], gap, shown[1], gap, shown[2]], axis=1), float(psnr_db(rebuilt, clean))


def _pixels(frame: torch.Tensor) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = (frame.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return found


def main() -> None:
    """Write the picture and print the PSNR of the rebuilt one."""
    arguments = command_line(
        __doc__, out=Option(Path, required=True), size=Option((320, 240), several=2), drop=0.5, index=3
    )
    width, height = arguments.size
    pixels, psnr = three(height, width, arguments.drop, arguments.index)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(arguments.out, optimize=True)
    print(f"r = {arguments.drop:g}: {psnr:.1f} dB")


if __name__ == "__main__":
    main()
