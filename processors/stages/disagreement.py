"""Drop disagreement: a label that hangs on a fragile pattern does not survive random drops.

A whole frame is judged again behind random drops. The statistic is the mean probability of its first label. STRIP finds
triggers that survive everything, this statistic those that survive little.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from processors.stages.shapes import check_frames
from processors.stages.unpack import laid_out
from schemas.errors import StageError
from schemas.limits import BLOCK
from schemas.pixels.masks import block_patterns, blocks_of

DROPS: Final = 10
"""Drops of each frame."""
DROPPED: Final = 32
"""Dropped pixels of each block of 64, half of them."""


def drop_agreement(first: Tensor, verdicts: Tensor) -> Tensor:
    """Return the mean probability (B,) of the labels `first` (B,) in `verdicts` (B, K, classes), logits behind K drops.

    A frame of low agreement is suspect. Raises StageError for other shapes or without a drop.
    """
    if verdicts.ndim != 3 or not verdicts.shape[1] or first.shape != verdicts.shape[:1]:
        raise StageError(
            f"verdicts: expected (B, K, classes) with K at least 1 for labels {tuple(first.shape)}, "
            f"got {tuple(verdicts.shape)}"
        )
    shares = verdicts.float().softmax(2)
    return shares.gather(2, first[:, None, None].expand(-1, verdicts.shape[1], 1)).mean((1, 2))


def repeated(frames: Tensor, count: int) -> Tensor:
    """Return each frame (B, C, H, W) `count` times in a row, (B · count, C, H, W): one for each drop."""
    check_frames(frames)
    return torch.repeat_interleave(frames, count, 0)


def drop_masks(seeds: NDArray[np.uint64], height: int, width: int, drops: int = DROPS) -> Tensor:
    """Return kept masks (B · drops, 1, height, width) bool, `drops` in a row for each of the frames' `seeds` (B, 2).

    Each mask has a codebook of its own, and drops `DROPPED` pixels of each block. Without the seeds nobody can
    predict it. The masks of a frame differ from the one that its camera draws from the same seed.
    """
    number = np.arange(1, drops + 1, dtype=np.uint64)
    each = np.repeat(seeds.astype(np.uint64), drops, 0)
    each[:, 1] ^= np.tile(number, len(seeds))
    rows, columns = blocks_of(height, width)
    words = block_patterns(each, np.ascontiguousarray(each[:, ::-1]), rows * columns, DROPPED)
    patterns = words.astype("<u8", copy=False).view(np.uint8).reshape(*words.shape, BLOCK)
    return laid_out(torch.from_numpy(patterns), height, width)
