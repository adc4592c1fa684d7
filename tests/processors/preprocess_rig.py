"""Pictures and bundles for the tests of preprocessing stages."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from processors.bundle import Bundle, load_bundle
from tests.processors.tiny import write_bundle

CHAIN = """
[[preprocess]]
stage = "dct-quantisation"
table = "table.txt"

[[preprocess]]
stage = "grid-distortion"
limit = 0.2
cell = 4
"""


def smooth_pictures(batch: int = 2, channels: int = 3, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    """Return smooth pictures with a little noise, (B, C, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, channels, 5, 5, generator=generator)
    frames = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return (frames + 0.03 * torch.randn(frames.shape, generator=generator)).clamp(0, 1)


def staged_folder(folder: Path, tables: str = CHAIN, **options: object) -> Path:
    """Write a small bundle with these `[[preprocess]]` tables, and return its folder.

    `table.txt` holds quantisation steps from 20 to 83.
    """
    write_bundle(folder, **options)  # type: ignore[arg-type]
    rows = [" ".join(str(20 + 8 * row + column) for column in range(8)) for row in range(8)]
    (folder / "table.txt").write_text("\n".join(rows) + "\n")
    with (folder / "model.toml").open("a") as settings:
        settings.write(tables)
    return folder


def staged_bundle(folder: Path, tables: str = CHAIN, **options: object) -> Bundle:
    """Return the bundle of `staged_folder`, loaded on the CPU."""
    return load_bundle(staged_folder(folder, tables, **options), torch.device("cpu"))
