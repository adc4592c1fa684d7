"""The step from sent pixels to frames: masks out of the cameras' keys, pixels back to their positions.

The bits are those of `schemas.pixels.masks` and `schemas.pixels.philox`, for a whole batch at once on the device.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from processors.stages.shapes import check_size
from schemas.errors import StageError
from schemas.limits import BLOCK
from schemas.pixels.masks import ROWS, blocks_of
from schemas.pixels.philox import MULTIPLIERS, ROUNDS, WEYL
from schemas.pixels.philox import philox as philox_on_host

MANY_COUNTERS: Final = 64
"""Counters of a frame from which numpy makes its words on a CPU sooner than torch makes those of a batch."""

_LOW: Final = 0xFFFFFFFF


def philox(seeds: Tensor, counters: int) -> Tensor:
    """Return words (B, counters, 4) below 2³² in int64: Philox-4x32-10 under the counters (0 .. counters − 1, 0, 0, 0).

    `seeds` (B, 2) int64 holds the two 32-bit key words of each frame. A product of two 32-bit words wraps in int64
    without losing a bit; only its shift to the right has to be freed of the sign.
    """
    c0 = torch.arange(counters, device=seeds.device)[None].expand(len(seeds), -1)
    c1 = c2 = c3 = torch.zeros_like(c0)
    k0, k1 = seeds[:, :1], seeds[:, 1:]
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c2 = (p1 >> 32 & _LOW) ^ c1 ^ k0, (p0 >> 32 & _LOW) ^ c3 ^ k1
        c1, c3 = p1 & _LOW, p0 & _LOW
        k0, k1 = k0 + WEYL[0] & _LOW, k1 + WEYL[1] & _LOW
    return torch.stack((c0, c1, c2, c3), dim=2)


def kept_masks(seeds: Tensor, codebooks: Tensor, book: Tensor, height: int, width: int) -> Tensor:
    """Return the masks of kept pixels: (B, 1, height, width) bool, True where one is kept.

    `seeds` is (B, 2) int64, `codebooks` (K, ROWS, 8) uint8 (the eight rows of an 8×8 pattern, lowest bit left), and
    `book` (B,) int64 is the index of each frame's codebook. Raises StageError if the shapes do not fit.
    """
    check_size(height, width)
    if seeds.ndim != 2 or seeds.shape[1] != 2 or tuple(codebooks.shape[1:]) != (ROWS, BLOCK):
        raise StageError(
            f"expected seeds (B, 2) and codebooks (K, {ROWS}, {BLOCK}), "
            f"got {tuple(seeds.shape)} and {tuple(codebooks.shape)}"
        )
    rows, columns = blocks_of(height, width)
    blocks = rows * columns
    counters = -(-blocks // 8)
    if seeds.device.type == "cpu" and not torch.compiler.is_compiling():
        halves_on_host = _words_on_host(seeds, counters).view("<u2")[:, :blocks] & np.uint16(ROWS - 1)
        # A block's eight bytes as one number.
        numbers = codebooks.contiguous().numpy().view(np.uint64)[book.numpy()[:, None], halves_on_host, 0]
        return laid_out(torch.from_numpy(numbers.view(np.uint8).reshape(len(seeds), blocks, BLOCK)), height, width)
    words = philox(seeds, counters).flatten(1)
    halves = torch.stack((words & 0xFFFF, words >> 16), dim=2).flatten(1)[:, :blocks]
    patterns = codebooks[book[:, None], halves & (ROWS - 1)]
    return laid_out(patterns, height, width)


def laid_out(patterns: Tensor, height: int, width: int) -> Tensor:
    """Return the masks (B, 1, height, width) bool whose blocks, in raster order, have the `patterns` (B, blocks, 8)
    uint8.
    """
    rows, columns = blocks_of(height, width)
    if patterns.device.type == "cpu" and not torch.compiler.is_compiling():
        # numpy unpacks a byte's eight bits at once, in an eighth of the time; the bytes are put into raster order
        # before that.
        raster = patterns.numpy().reshape(-1, rows, columns, BLOCK).transpose(0, 1, 3, 2)
        raster = raster.reshape(len(patterns), rows * BLOCK, columns)[:, :height]
        return torch.from_numpy(np.unpackbits(raster, axis=2, count=width, bitorder="little").view(np.bool_))[:, None]
    lines = patterns.view(-1, rows, columns, BLOCK).transpose(2, 3)
    bits = lines[..., None] >> torch.arange(BLOCK, dtype=torch.uint8, device=patterns.device) & 1
    padded = bits.reshape(len(patterns), 1, rows * BLOCK, columns * BLOCK)
    return padded[:, :, :height, :width].bool()


def _words_on_host(seeds: Tensor, counters: int) -> NDArray[np.uint32]:
    """Return the words of `philox` as (B, 4 · counters)."""
    if counters < MANY_COUNTERS:
        return philox(seeds, counters).flatten(1).numpy().astype("<u4")
    each = [philox_on_host((first, second), counters).reshape(-1) for first, second in seeds.tolist()]
    return np.stack(each) if each else np.empty((0, 4 * counters), dtype="<u4")


def place(pixels: Tensor, sent: Tensor) -> Tensor:
    """Return frames (B, C, H, W) float32 in [0, 1] with `pixels` where `sent` is True, and zero elsewhere.

    `pixels` (P, C) uint8 are the sent pixels of all frames in raster order, frame after frame; `sent` is (B, 1, H, W)
    bool. The caller ensures that the pixels fill the mask: nothing is checked on the device. There may be more than
    `sent` needs, so that their shape stays the same from batch to batch, and there is at least one.
    """
    batch, _, height, width = sent.shape
    if sent.device.type == "cpu" and not torch.compiler.is_compiling():
        return _placed(pixels, sent)
    # These two choices save half of the time of a large frame: 32 bits are enough to count its pixels, and a product of
    # floats is the fastest way to leave some out.
    source = sent.flatten().cumsum(0, dtype=torch.int32).sub_(1).clamp_(0, len(pixels) - 1)
    frames = pixels.index_select(0, source).view(batch, height, width, -1)
    planes = frames.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.mul_(sent).div_(255)


def _placed(pixels: Tensor, sent: Tensor) -> Tensor:
    """Apply `place` on the host: each plane of floats is gathered separately, which saves half of the time."""
    batch, _, height, width = sent.shape
    where = sent.flatten().to(torch.int32)
    source = where.cumsum(0, dtype=torch.int32)
    count = int(source[-1]) if len(source) else 0
    # The first value stands for every pixel that was not sent.
    values = torch.empty(pixels.shape[1], count + 1)
    values[:, 0] = 0
    values[:, 1:] = pixels[:count].T
    planes = values.div_(255).index_select(1, source.mul_(where))
    return planes.view(pixels.shape[1], batch, height, width).transpose(0, 1).contiguous()
