"""Masks for experiments: the pixels that a fleet's cameras would keep of each picture, thousands at a time."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import ConfigError
from schemas.limits import BLOCK, MAX_DROPPED_PER_BLOCK, dropped_per_block
from schemas.pixels.masks import ROWS, blocks_of, codebook, uniform_codebook

CAMERAS: Final = 8
"""Codebooks that the pictures' cameras share: a picture's mask is one of 8 · 4,096 ^ blocks."""

_CAMERA_SEED: Final = 0x706C6162
MAX_DROP_RATIO: Final = MAX_DROPPED_PER_BLOCK / BLOCK**2


def check_drop_ratio(drop_ratio: float) -> None:
    """Raise ConfigError unless it is a number in [0, 0.875]."""
    if not 0 <= drop_ratio <= MAX_DROP_RATIO:
        raise ConfigError(f"drop ratio: expected 0 to {MAX_DROP_RATIO}, got {drop_ratio}")


def random_masks(
    count: int, height: int, width: int, drop_ratio: float, generator: torch.Generator, spread: bool = True
) -> Tensor:
    """Return kept masks (count, 1, height, width) bool, each of another random camera and frame.

    A mask takes a random row of its camera's codebook for every 8×8 block, like `schemas.pixels.masks.kept_mask`, with
    round(64 · `drop_ratio`) pixels dropped. `spread=False` takes uniformly random rows instead, for comparison.
    `generator` must be on the CPU. Raises ConfigError for a drop ratio outside [0, 0.875].
    """
    check_drop_ratio(drop_ratio)
    rows, columns = blocks_of(height, width)
    books = _books(dropped_per_block(drop_ratio), spread)
    camera = torch.randint(CAMERAS, (count, 1), generator=generator).numpy()
    row = torch.randint(ROWS, (count, rows * columns), generator=generator).numpy()
    words = books[camera, row]
    raster = words.view(np.uint8).reshape(count, rows, columns, BLOCK).transpose(0, 1, 3, 2)
    raster = raster.reshape(count, rows * BLOCK, columns)[:, :height]
    kept = np.unpackbits(raster, axis=2, count=width, bitorder="little").view(np.bool_)
    return torch.from_numpy(kept)[:, None]


@lru_cache(maxsize=2 * MAX_DROPPED_PER_BLOCK)
def _books(dropped: int, spread: bool) -> NDArray[np.uint64]:
    make = codebook if spread else uniform_codebook
    return np.stack([make((_CAMERA_SEED, camera), dropped) for camera in range(CAMERAS)])
