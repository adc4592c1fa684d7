"""Which pixels of a frame are kept: keyed masks drawn from a per-camera codebook.

A codebook holds `ROWS` patterns of an 8×8 block, each with exactly the same number of dropped pixels. The frame's seed
(camera key, boot id, sequence number) picks one row for each block, so the mask is never sent and one that leaks tells
nothing about the next. A mask carries log2(`ROWS`) = 12 bits of entropy a block: 192 bits at 32×32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.keys import CameraKey
from schemas.limits import BLOCK, BLOCK_PIXELS, MAX_DROPPED_PER_BLOCK
from schemas.philox import philox

ROWS: Final = 4096
"""Rows of a codebook, a power of two up to 65,536."""

Mask = NDArray[np.bool_]


def blocks_of(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of 8×8 blocks that cover a frame; the last ones may reach over its edge."""
    return -(-height // BLOCK), -(-width // BLOCK)


@lru_cache(maxsize=4096)
def codebook(seed: tuple[int, int], dropped_per_block: int) -> NDArray[np.uint64]:
    """The rows (ROWS,) as 64-bit words: bit 8·y + x is set where the pixel (y, x) of the block is kept.

    Each row keeps the 64 − `dropped_per_block` pixels with the largest random words.
    """
    if not 0 <= dropped_per_block <= MAX_DROPPED_PER_BLOCK:
        raise ValueError(f"expected 0 to {MAX_DROPPED_PER_BLOCK} dropped pixels a block, got {dropped_per_block}")
    kept = np.ones((ROWS, BLOCK_PIXELS), dtype=np.bool_)
    if dropped_per_block:
        words = philox(seed, ROWS * BLOCK_PIXELS // 4).reshape(ROWS, BLOCK_PIXELS)
        # The pixel's number below the word decides between equal words, and makes a partition enough.
        ranked = (words.astype(np.uint64) << np.uint64(6)) | np.arange(BLOCK_PIXELS, dtype=np.uint64)
        last_dropped = np.partition(ranked, dropped_per_block - 1, axis=1)[:, dropped_per_block - 1]
        kept = ranked > last_dropped[:, None]
    rows: NDArray[np.uint64] = np.packbits(kept, axis=1, bitorder="little").view("<u8")[:, 0]
    rows.flags.writeable = False
    return rows


def row_indices(seed: tuple[int, int], blocks: int) -> NDArray[np.int64]:
    """The codebook row of each block, in raster order: the low and then the high half of each Philox word."""
    words = philox(seed, -(-blocks // 8)).reshape(-1)
    halves = np.stack((words & 0xFFFF, words >> 16), axis=1).reshape(-1)[:blocks]
    return (halves & (ROWS - 1)).astype(np.int64)


def kept_mask(key: CameraKey, boot_id: int, seq: int, height: int, width: int, dropped_per_block: int) -> Mask:
    """Which pixels (height, width) of a frame are kept: True where one is sent."""
    if dropped_per_block == 0:
        return np.ones((height, width), dtype=np.bool_)
    rows, columns = blocks_of(height, width)
    book = codebook(key.codebook_seed(dropped_per_block), dropped_per_block)
    words = book[row_indices(key.frame_seed(boot_id, seq), rows * columns)]
    # A byte of a word is one row of its block: put into raster order while they are still an eighth of the bits.
    raster = words.view(np.uint8).reshape(rows, columns, BLOCK).transpose(0, 2, 1).reshape(rows * BLOCK, columns)
    return np.unpackbits(raster[:height], axis=1, count=width, bitorder="little").view(np.bool_)
